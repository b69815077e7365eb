"""Signatures of tokens, by joserfc."""

from typing import Any

from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jws import JWSRegistry, deserialize_compact

MAX_HEADER = 2048


class _OneAlgorithm(JWSRegistry):
    """Take one algorithm, whatever a token's header says."""

    max_header_length = MAX_HEADER

    def __init__(self, algorithm: str) -> None:
        super().__init__(algorithms=[algorithm], strict_check_header=False)
        self._only = algorithm

    def get_alg(self, name: str) -> Any:
        # NOTE: the one it stands in for warns of `EdDSA`, the older name of Ed25519, which issuers still write.
        if name != self._only:
            raise UnsupportedAlgorithmError(f"algorithm is not {self._only}")
        return self.algorithms[name]


_registries: dict[str, _OneAlgorithm] = {}


def is_good(token: bytes, key: Any, algorithm: str) -> bool:
    """Say whether a compact token is signed with the key by exactly that algorithm."""
    registry = _registries.get(algorithm)
    if registry is None:
        registry = _registries.setdefault(algorithm, _OneAlgorithm(algorithm))
    try:
        deserialize_compact(token, key, algorithms=[algorithm], registry=registry)
    except (JoseError, ValueError, TypeError):
        return False
    return True
