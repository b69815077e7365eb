"""What msgspec says of a value is said in our words, with what was expected and where."""

from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta, Struct

from cra.protocol.carp import Request
from cra.protocol.explain import explain
from cra.protocol.fields import Uuid


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(Struct):
    colour: Colour | None = None
    size: Literal["s", "m"] = "s"


class Outer(Struct, rename={"many": "so-many"}):
    many: list[Inner] = []
    named: dict[str, Inner] = {}
    pair: Annotated[tuple[Colour, ...], Meta(max_length=3)] = ()
    ids: tuple[Uuid, ...] = ()
    count: Annotated[int, Meta(ge=1)] = 1


@pytest.mark.parametrize(
    ("value", "words", "pointer"),
    [
        ({"so-many": [{"colour": "green"}]}, "found `green`, expected one of red, blue", "/so-many/0/colour"),
        ({"so-many": [{}, {"size": "xl"}]}, "found `xl`, expected one of m, s", "/so-many/1/size"),
        ({"named": {"a": {"colour": "green"}}}, "found `green`, expected one of red, blue", "/named/.../colour"),
        ({"pair": ["red", "green"]}, "found `green`, expected one of red, blue", "/pair/1"),
        ({"ids": ["x"]}, "expected a UUID of 36 lower-case characters", "/ids/0"),
        ({"count": 0}, "expected `int` >= 1", "/count"),
        ({"count": "1"}, "expected `int`, got `str`", "/count"),
        ([], "expected `object`, got `array`", ""),
    ],
)
def test_words_and_place(value: Any, words: str, pointer: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(value, Outer)
    assert explain(caught.value, Outer) == (words, pointer)


def test_a_request_of_another_version_is_told_which_there_is() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"carp_version": "2.0"}, Request)
    assert explain(caught.value, Request) == ("found `2.0`, expected one of 1.0", "/carp_version")
