"""Context: which documents a request gets, in which order, within a token budget."""

import hashlib
import math
from typing import NamedTuple

from specs.reference import policy
from specs.reference.policy import Json

Files = dict[str, dict[str, str]]  # atlas_id -> path as in the manifest -> text

CONTENT_TYPES = {".md": "text/markdown", ".markdown": "text/markdown", ".json": "application/json"}


class Block(NamedTuple):
    """One file of one context pack."""

    atlas: Json
    pack: Json
    file: str
    text: str

    @property
    def tokens(self) -> int:
        """Four code points are one token, rounded up."""
        return -(-len(self.text) // 4)

    @property
    def priority(self) -> int:
        return int(self.pack.get("priority", 100))

    @property
    def content_hash(self) -> str:
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()

    def wire(self) -> Json:
        """Return the block as a resolution carries it."""
        return {
            "block_id": f"{self.pack['pack_id']}/{self.file}",
            "source": self.atlas["atlas_id"],
            "content_type": content_type(self.file),
            "content": self.text,
            "priority": self.priority,
            "token_estimate": self.tokens,
        }


def content_type(file: str) -> str:
    """Return the type that a file's suffix stands for; letter case does not count."""
    name = file.rpartition("/")[2]
    suffix = name[name.rfind(".") :].lower() if "." in name else ""
    return CONTENT_TYPES.get(suffix, "text/plain")


def blocks_of(atlas: Json, files: Files) -> list[Block]:
    """Return every block of an atlas in manifest order."""
    texts = files.get(atlas["atlas_id"], {})
    return [
        Block(atlas, pack, file, texts[file])
        for pack in atlas.get("context_packs", [])
        for file in pack.get("files", [])
    ]


def words(text: str) -> list[str]:
    """Return the maximal runs of alphanumeric characters (`str.isalnum`) of the casefolded text."""
    spaced = "".join(char if char.isalnum() else " " for char in text.casefold())
    return spaced.split()


def scores(texts: list[str], goal: str, hints: list[str]) -> list[int]:
    """Return each text's BM25 relevance (k1 = 1.2, b = 0.75) in integers, so that every machine agrees.

    The texts are all blocks of one atlas. Each distinct word of goal and hints counts once.
    """
    documents = [words(text) for text in texts]
    query = set(words(goal)).union(*(words(hint) for hint in hints))
    return [sum(weight(word, document, documents) for word in query) for document in documents]


def weight(word: str, document: list[str], documents: list[list[str]]) -> int:
    """Return what one word adds to one document's relevance."""
    count, total = len(documents), sum(map(len, documents))
    having = sum(1 for other in documents if word in other)
    times = document.count(word)
    if times == 0:
        return 0
    rarity = round(1_000_000 * math.log(1 + (count - having + 0.5) / (having + 0.5)))
    return rarity * times * 2200 * total // (1000 * times * total + 300 * total + 900 * len(document) * count)


def pack_holds(atlas: Json, pack: Json, request: Json, now: int, session_context: Json | None = None) -> bool:
    """Tell whether a pack's conditions hold, and a capability that names it is asked for if any is.

    A pack's `risk_tiers` must list the request's tier, its `capabilities` must meet the required ones.
    """
    conditions = pack.get("conditions", {})
    asked = set(request["task"].get("required_capabilities", []))
    naming = {
        capability["capability_id"]
        for capability in atlas.get("capabilities", [])
        if pack["pack_id"] in capability.get("context_packs", [])
    }
    return (
        ("risk_tiers" not in conditions or request["task"].get("risk_tier", "low") in conditions["risk_tiers"])
        and ("capabilities" not in conditions or bool(asked & set(conditions["capabilities"])))
        and (not asked or not naming or bool(asked & naming))
        and policy.general_holds(
            conditions, request["requester"]["agent_id"], policy.context_of(request, session_context), now
        )
    )


def ranked(
    atlases: list[Json], files: Files, request: Json, now: int, session_context: Json | None = None
) -> list[Block]:
    """Return the blocks whose packs hold: priority high first, then relevance, then manifest order."""
    task = request["task"]
    atlas_ids = request.get("atlas_ids", [])
    found: list[tuple[int, int, int, Block]] = []
    for atlas in atlases:
        if atlas_ids and atlas["atlas_id"] not in atlas_ids:
            continue
        blocks = blocks_of(atlas, files)
        relevance = scores([block.text for block in blocks], task["goal"], task.get("context_hints", []))
        for block, score in zip(blocks, relevance, strict=True):
            if pack_holds(atlas, block.pack, request, now, session_context):
                found.append((-block.priority, -score, len(found), block))
    return [block for _, _, _, block in sorted(found, key=lambda item: item[:3])]


def without_duplicates(blocks: list[Block]) -> list[Block]:
    """Keep the first block of each content."""
    seen: set[str] = set()
    kept = []
    for block in blocks:
        if block.content_hash not in seen:
            kept.append(block)
        seen.add(block.content_hash)
    return kept


def fit(blocks: list[Block], max_tokens: int | None) -> tuple[list[Block], list[Block]]:
    """Return what fits the budget and what does not; a block is skipped, never cut, and smaller ones may follow.

    A pack's own `max_tokens` bounds the sum of its blocks in the same way.
    """
    kept: list[Block] = []
    skipped: list[Block] = []
    for block in blocks:
        total = sum(other.tokens for other in kept) + block.tokens
        of_pack = sum(other.tokens for other in kept if _same_pack(other, block)) + block.tokens
        too_much = max_tokens is not None and total > max_tokens
        too_much_of_pack = "max_tokens" in block.pack and of_pack > block.pack["max_tokens"]
        (skipped if too_much or too_much_of_pack else kept).append(block)
    return kept, skipped


def _same_pack(one: Block, other: Block) -> bool:
    return (one.atlas["atlas_id"], one.pack["pack_id"]) == (other.atlas["atlas_id"], other.pack["pack_id"])


def select(
    atlases: list[Json],
    files: Files,
    request: Json,
    now: int,
    max_tokens: int | None = None,
    session_context: Json | None = None,
) -> tuple[list[Block], list[Block]]:
    """Return the blocks to inject, best first, and those left out for a token budget."""
    return fit(without_duplicates(ranked(atlases, files, request, now, session_context)), max_tokens)
