"""Policy tables: which policy decides about which action."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.stdlib cimport qsort
from libc.string cimport memset

cimport cython

from cra._core.canonical import dumps

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object, Py_ssize_t *) except NULL

cdef extern from "glob.h" nogil:
    int cra_glob(const char *pattern, size_t pattern_size, const char *text, size_t text_size)


DECISIONS = ("allow", "deny", "requires_approval", "rate_limited", "budget_exceeded")
PHASES = ("deny", "scope", "require_approval", "rate_limit", "budget", "allow")


cdef int _by_policy(const void *left, const void *right) noexcept nogil:
    cdef const Bond *a = <const Bond *> left
    cdef const Bond *b = <const Bond *> right
    if a.policy != b.policy:
        return -1 if a.policy < b.policy else 1
    return -1 if a.action < b.action else (a.action > b.action)


@cython.final
cdef class Outcome:
    """What was decided about every action of a table; owned by one request."""

    def __cinit__(self, Py_ssize_t size, dict usage=None):
        if size < 0:
            raise ValueError("size is negative")
        self.size = size
        self.code = <unsigned char *> PyMem_Malloc(size or 1)
        self.policy = <int *> PyMem_Calloc(size or 1, sizeof(int))
        if self.code == NULL or self.policy == NULL:
            raise MemoryError
        memset(self.code, SKIPPED, size)
        self.usage = usage

    def __dealloc__(self):
        PyMem_Free(self.code)
        PyMem_Free(self.policy)
        PyMem_Free(self.bonds)

    cdef int bind(self, int policy, int action) except -1:
        cdef Py_ssize_t room
        cdef Bond *grown
        if self.bond_count == self.bond_room:
            room = 2 * self.bond_room + 16
            grown = <Bond *> PyMem_Realloc(self.bonds, room * sizeof(Bond))
            if grown == NULL:
                raise MemoryError
            self.bonds = grown
            self.bond_room = room
        self.bonds[self.bond_count].policy = policy
        self.bonds[self.bond_count].action = action
        self.bond_count += 1
        return 0

    cdef int sort_bonds(self) except -1:
        if self.bond_count > 1:
            qsort(self.bonds, self.bond_count, sizeof(Bond), _by_policy)
        return 0

    def decision(self, Py_ssize_t action) -> tuple[str, int] | None:
        """Return the word of `DECISIONS` and the policy's index (-1: none decided); None if not considered."""
        if not 0 <= action < self.size:
            raise IndexError(f"action index {action} is outside 0..{self.size - 1}")
        if self.code[action] == SKIPPED:
            return None
        return DECISIONS[self.code[action]], self.policy[action]

    def offered(self, list plain not None, list confirming not None) -> tuple:
        """Return `plain[i]` for each allowed action and `confirming[i]` for each that waits for approval."""
        if len(plain) != self.size or len(confirming) != self.size:
            raise ValueError(f"expected two lists of {self.size}")
        cdef Py_ssize_t i
        cdef list result = []
        for i in range(self.size):
            if self.code[i] == ALLOW:
                result.append(plain[i])
            elif self.code[i] == APPROVAL:
                result.append(confirming[i])
        return tuple(result)

    def refused(self) -> list[tuple[int, str, int]]:
        """Return (action, decision, policy) of every denied action, in order."""
        cdef Py_ssize_t i
        cdef list result = []
        for i in range(self.size):
            if self.code[i] != ALLOW and self.code[i] != APPROVAL and self.code[i] != SKIPPED:
                result.append((i, DECISIONS[self.code[i]], self.policy[i]))
        return result

    def bindings(self) -> list[tuple[int, list[int]]]:
        """Return (policy, actions) for every policy that binds an offered action, in evaluation order."""
        cdef Py_ssize_t k
        cdef list result = []
        cdef list actions = []
        cdef int last = -1
        self.sort_bonds()
        for k in range(self.bond_count):
            if self.bonds[k].policy != last:
                last = self.bonds[k].policy
                actions = []
                result.append((last, actions))
            actions.append(self.bonds[k].action)
        return result


@cython.final
cdef class PolicyTable:
    """Every policy that could decide about each action, in evaluation order; immutable.

    `actions` are (risk 0..3, atlas index, closed); `policies` are in evaluation order (phase, priority, manifest,
    load order), each (phase, risk_mask, agents|None, context|None, window|-1, parameters|None, scope|None,
    atlas index, action indexes). `agents` are globs, `context` is ((key, glob), ...); `parameters` and `scope` are
    callables that tell whether a call's parameters match. `windows` is how many time windows there are.
    """

    def __cinit__(self, list actions not None, list policies not None, Py_ssize_t windows=0):
        cdef Py_ssize_t n = len(actions), m = len(policies), total = 0, i, p, k
        cdef list mine = [[] for _ in range(n)]
        cdef list agents = [], context = [], parameters = [], scopes = []
        self.action_count = n
        self.policy_count = m
        self.window_count = windows
        self.rows = <PolicyRow *> PyMem_Calloc(m or 1, sizeof(PolicyRow))
        self.start = <Py_ssize_t *> PyMem_Calloc(n + 1, sizeof(Py_ssize_t))
        self.action_risk = <unsigned char *> PyMem_Calloc(n or 1, 1)
        self.action_atlas = <int *> PyMem_Calloc(n or 1, sizeof(int))
        self.closed = <unsigned char *> PyMem_Calloc(n or 1, 1)
        self.limited = <unsigned char *> PyMem_Calloc(n or 1, 1)
        if NULL in (self.rows, self.start, self.action_risk, self.action_atlas, self.closed, self.limited):
            raise MemoryError
        for i in range(n):
            risk, atlas, closed = actions[i]
            if not 0 <= risk <= 3:
                raise ValueError(f"action {i}: risk is {risk}, expected 0..3")
            self.action_risk[i] = risk
            self.action_atlas[i] = atlas
            self.closed[i] = bool(closed)
        last_phase = 0
        for p in range(m):
            phase, mask, agent_globs, matches, window, schema, scope, atlas, bound = policies[p]
            if not last_phase <= phase <= PHASE_ALLOW:
                raise ValueError(f"policy {p}: phase {phase} after {last_phase}, expected evaluation order")
            last_phase = phase
            self.rows[p].phase = phase
            self.rows[p].risk_mask = mask
            self.rows[p].window = window
            if window >= windows:
                raise ValueError(f"policy {p}: time window {window} of {windows}")
            self.rows[p].atlas = atlas
            self.rows[p].parametric = schema is not None
            self.rows[p].conditional = agent_globs is not None or matches is not None or window >= 0
            agents.append(None if agent_globs is None else tuple(glob.encode() for glob in agent_globs))
            context.append(None if matches is None else tuple((key, glob.encode()) for key, glob in matches))
            parameters.append(schema)
            scopes.append(scope)
            for i in bound:
                if not 0 <= i < n:
                    raise IndexError(f"policy {p}: action index {i} is outside 0..{n - 1}")
                if phase == PHASE_ALLOW and atlas != self.action_atlas[i]:
                    raise ValueError(f"policy {p}: an allow policy binds an action of another atlas")
                (<list> mine[i]).append(p)
                if phase == PHASE_RATE or phase == PHASE_BUDGET:
                    self.limited[i] = 1
        for i in range(n):
            mine[i] = self._reachable(<list> mine[i])
            total += len(<list> mine[i])
        self.order = <int *> PyMem_Malloc((total or 1) * sizeof(int))
        if self.order == NULL:
            raise MemoryError
        k = 0
        for i in range(n):
            self.start[i] = k
            for p in <list> mine[i]:
                self.order[k] = p
                k += 1
        self.start[n] = k
        self.agents = tuple(agents)
        self.context = tuple(context)
        self.parameters = tuple(parameters)
        self.scopes = tuple(scopes)

    def __dealloc__(self):
        PyMem_Free(self.rows)
        PyMem_Free(self.order)
        PyMem_Free(self.start)
        PyMem_Free(self.action_risk)
        PyMem_Free(self.action_atlas)
        PyMem_Free(self.closed)
        PyMem_Free(self.limited)

    def _reachable(self, list policies not None) -> list[int]:
        # What stands behind a deny or an allow that always holds can never decide.
        cdef int p
        cdef list kept = []
        for p in policies:
            kept.append(p)
            if self.rows[p].phase in (PHASE_DENY, PHASE_ALLOW) and not (
                self.rows[p].conditional or self.rows[p].parametric or self.rows[p].risk_mask != 15
            ):
                break
        return kept

    cdef int _fill(self, Facts *facts, str agent_id, int risk, bytes windows) except -1:
        if not 0 <= risk <= 3:
            raise ValueError(f"risk is {risk}, expected 0..3")
        if (0 if windows is None else PyBytes_GET_SIZE(windows)) != self.window_count:
            raise ValueError(f"windows is {windows!r}, expected {self.window_count} bytes")
        facts.agent = PyUnicode_AsUTF8AndSize(agent_id, &facts.agent_size)
        facts.risk = risk
        facts.executing = 0
        facts.approved = 0
        facts.windows = <const unsigned char *> PyBytes_AS_STRING(windows) if windows is not None else NULL
        return 0

    cdef int _general(self, int p, const Facts *facts, dict context) except -1:
        # The conditions that do not depend on the action: agents, time window, context.
        cdef tuple globs = <tuple> self.agents[p] if self.agents[p] is not None else None
        cdef const char *text
        cdef Py_ssize_t size
        cdef bytes glob
        if self.rows[p].window >= 0 and not facts.windows[self.rows[p].window]:
            return 0
        if globs is not None:
            for glob in globs:
                if cra_glob(PyBytes_AS_STRING(glob), PyBytes_GET_SIZE(glob), facts.agent, facts.agent_size):
                    break
            else:
                return 0
        if self.context[p] is not None:
            if context is None:
                return 0
            for key, glob in <tuple> self.context[p]:
                value = context.get(key)
                if not isinstance(value, str):
                    if isinstance(value, (dict, list, tuple)) or key not in context:
                        return 0
                    value = dumps(value).decode()
                text = PyUnicode_AsUTF8AndSize(value, &size)
                if not cra_glob(PyBytes_AS_STRING(glob), PyBytes_GET_SIZE(glob), text, size):
                    return 0
        return 1

    cdef int _walk(
        self, int i, const Facts *facts, dict context, dict usage, object parameters,
        unsigned char *cache, Outcome outcome, int *policy
    ) except -1:
        # INVARIANT: whatever raises here leaves the caller without a decision, never with an allow.
        cdef int approval = -1, limit = -1, allow = -1, limit_code = RATE_LIMITED
        cdef int p, phase, own = 0, allowed, held, effective
        cdef unsigned int reach
        cdef Py_ssize_t k
        cdef PolicyRow *row
        effective = facts.risk if facts.risk > self.action_risk[i] else self.action_risk[i]
        # The tiers from the action's own up to the effective one, as bits.
        reach = ((2u << effective) - 1) & ~((1u << self.action_risk[i]) - 1)
        for k in range(self.start[i], self.start[i + 1]):
            p = self.order[k]
            row = &self.rows[p]
            phase = row.phase
            if row.risk_mask != 15:
                if phase == PHASE_ALLOW:
                    if reach & ~(<unsigned int> row.risk_mask):
                        continue
                elif not (reach & row.risk_mask):
                    continue
            if row.conditional:
                if cache == NULL:
                    held = self._general(p, facts, context)
                elif cache[p]:
                    held = cache[p] - 1
                else:
                    held = self._general(p, facts, context)
                    cache[p] = held + 1
                if not held:
                    continue
            if row.parametric:
                if facts.executing:
                    if not self.parameters[p](parameters):
                        continue
                elif phase != PHASE_ALLOW:
                    outcome.bind(p, i)
                    continue
            if phase == PHASE_DENY:
                policy[0] = p
                return DENY
            elif phase == PHASE_SCOPE:
                if not facts.executing:
                    outcome.bind(p, i)
                elif not self.scopes[p](parameters):
                    policy[0] = p
                    return DENY
            elif phase == PHASE_APPROVAL:
                if approval < 0:
                    approval = p
                # What it opens is a permission, so every tier must be listed: claiming a higher one opens nothing.
                if row.atlas == self.action_atlas[i] and not (reach & ~(<unsigned int> row.risk_mask)):
                    own = 1
            elif phase == PHASE_ALLOW:
                allow = p
                break
            else:
                if limit < 0 and usage is not None:
                    wait = usage.get(p)
                    if wait:
                        limit = p
                        if wait == -2:
                            limit_code = DENY
                        elif phase == PHASE_BUDGET:
                            limit_code = BUDGET_EXCEEDED
                if outcome is not None:
                    outcome.bind(p, i)
        allowed = allow >= 0 or not self.closed[i]
        if approval >= 0 and not own and not allowed:
            # Approval asked for by another atlas restricts; it never opens what the action's own atlas keeps shut.
            approval = -1
        if approval >= 0 and not facts.approved:
            policy[0] = approval
            if outcome is not None:
                outcome.bind(approval, i)
            return APPROVAL
        if limit >= 0:
            policy[0] = limit
            return limit_code
        if approval >= 0:
            policy[0] = approval
            return ALLOW
        policy[0] = allow
        if not allowed:
            return DENY
        if allow >= 0 and outcome is not None and (self.rows[allow].window >= 0 or self.rows[allow].parametric):
            outcome.bind(allow, i)
        return ALLOW

    def evaluate(
        self, str agent_id not None, int risk, dict context=None, bytes windows=None, dict usage=None,
        bytes considered=None
    ) -> Outcome:
        """Decide about every action as a resolve does.

        `risk` is the request's tier 0..3; `windows` has one byte for each time window, 1 where it is open; `usage`
        maps a limit policy to the microseconds to wait (0: room, -1: never fits); `considered` has one byte for
        each action, 0 to leave it out.
        """
        cdef Facts facts
        cdef Py_ssize_t i
        cdef int code
        cdef Py_ssize_t mark
        cdef unsigned char *cache = NULL
        cdef const unsigned char *wanted = NULL
        cdef Outcome outcome = Outcome(self.action_count, usage)
        outcome.policy_count = self.policy_count
        self._fill(&facts, agent_id, risk, windows)
        if considered is not None:
            if PyBytes_GET_SIZE(considered) != self.action_count:
                raise ValueError(f"considered has {PyBytes_GET_SIZE(considered)} bytes, expected {self.action_count}")
            wanted = <const unsigned char *> PyBytes_AS_STRING(considered)
        cache = <unsigned char *> PyMem_Calloc(self.policy_count or 1, 1)
        if cache == NULL:
            raise MemoryError
        try:
            for i in range(self.action_count):
                if wanted != NULL and not wanted[i]:
                    continue
                mark = outcome.bond_count
                code = self._walk(<int> i, &facts, context, usage, None, cache, outcome, &outcome.policy[i])
                outcome.code[i] = code
                if code == ALLOW:
                    outcome.allowed_count += 1
                elif code == APPROVAL:
                    outcome.approval_count += 1
                else:
                    outcome.denied_count += 1
                    # A denied action is not offered, so nothing needs to bind it.
                    outcome.bond_count = mark
        finally:
            PyMem_Free(cache)
        return outcome

    def decide(
        self, int action, str agent_id not None, int risk, dict context=None, bytes windows=None,
        dict usage=None, object parameters=None, bint approved=False
    ) -> tuple[str, int]:
        """Decide about one call as an execute does: `parameters` count, and `approved` says a person agreed."""
        cdef int policy = -1
        cdef int code = self.judge(action, agent_id, risk, context, windows, usage, parameters, approved, &policy)
        return DECISIONS[code], policy

    cdef int judge(
        self, int action, str agent_id, int risk, dict context, bytes windows, dict usage, object parameters,
        bint approved, int *policy
    ) except -1:
        cdef Facts facts
        if not 0 <= action < self.action_count:
            raise IndexError(f"action index {action} is outside 0..{self.action_count - 1}")
        self._fill(&facts, agent_id, risk, windows)
        facts.executing = 1
        facts.approved = approved
        policy[0] = -1
        return self._walk(action, &facts, context, usage, parameters, NULL, None, policy)

    def limits(
        self, int action, str agent_id not None, int risk, dict context=None, bytes windows=None,
        object parameters=None
    ) -> list[int]:
        """Return the rate limits and budgets that bind this call, in evaluation order."""
        cdef Facts facts
        cdef Py_ssize_t k
        cdef PolicyRow *row
        cdef int p, effective
        cdef unsigned int reach
        cdef list result = []
        if not 0 <= action < self.action_count:
            raise IndexError(f"action index {action} is outside 0..{self.action_count - 1}")
        if not self.limited[action]:
            return result
        self._fill(&facts, agent_id, risk, windows)
        effective = risk if risk > self.action_risk[action] else self.action_risk[action]
        reach = ((2u << effective) - 1) & ~((1u << self.action_risk[action]) - 1)
        for k in range(self.start[action], self.start[action + 1]):
            p = self.order[k]
            row = &self.rows[p]
            if row.phase != PHASE_RATE and row.phase != PHASE_BUDGET:
                continue
            if not (reach & row.risk_mask):
                continue
            if row.conditional and not self._general(p, &facts, context):
                continue
            if row.parametric and not self.parameters[p](parameters):
                continue
            result.append(p)
        return result
