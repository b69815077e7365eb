cdef enum:
    PHASE_DENY = 0
    PHASE_SCOPE = 1
    PHASE_APPROVAL = 2
    PHASE_RATE = 3
    PHASE_BUDGET = 4
    PHASE_ALLOW = 5

    ALLOW = 0
    DENY = 1
    APPROVAL = 2
    RATE_LIMITED = 3
    BUDGET_EXCEEDED = 4
    SKIPPED = 255

cdef struct PolicyRow:
    unsigned char phase
    unsigned char risk_mask
    unsigned char conditional
    unsigned char parametric
    int window
    int atlas

cdef struct Bond:
    # One policy that binds one offered action: the raw material of constraints.
    int policy
    int action

cdef struct Facts:
    # Borrowed for the length of one call.
    const char *agent
    Py_ssize_t agent_size
    int risk
    int executing
    int approved
    const unsigned char *windows

cdef class Outcome:
    cdef unsigned char *code
    cdef int *policy
    cdef readonly Py_ssize_t size
    cdef Py_ssize_t policy_count
    cdef Bond *bonds
    cdef Py_ssize_t bond_count
    cdef Py_ssize_t bond_room
    cdef readonly Py_ssize_t allowed_count
    cdef readonly Py_ssize_t approval_count
    cdef readonly Py_ssize_t denied_count
    cdef dict usage

    cdef int bind(self, int policy, int action) except -1
    cdef int sort_bonds(self) except -1


cdef class PolicyTable:
    cdef readonly Py_ssize_t action_count
    cdef readonly Py_ssize_t policy_count
    cdef readonly Py_ssize_t window_count
    cdef PolicyRow *rows
    cdef int *order
    cdef Py_ssize_t *start
    cdef unsigned char *action_risk
    cdef int *action_atlas
    cdef unsigned char *closed
    cdef unsigned char *limited
    cdef tuple agents
    cdef tuple context
    cdef tuple parameters
    cdef tuple scopes

    cdef int _fill(self, Facts *facts, str agent_id, int risk, bytes windows) except -1
    cdef int judge(
        self, int action, str agent_id, int risk, dict context, bytes windows, dict usage, object parameters,
        bint approved, int *policy) except -1
    cdef int _general(self, int p, const Facts *facts, dict context) except -1
    cdef int _walk(
        self, int i, const Facts *facts, dict context, dict usage, object parameters,
        unsigned char *cache, Outcome outcome, int *policy) except -1
