"""What the schema allows, in words."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, RootModel

from tunectl.config.loading import type_descriptions


class One(BaseModel):
    method: Literal["one"]
    size: int


class Two(BaseModel):
    method: Literal["two"]
    name: str


class Either(RootModel[Annotated[One | Two, Field(discriminator="method")]]):
    pass


Share = Annotated[float, Field(ge=0, le=1)]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "a whole number"),
        (bool, "true or false"),
        (Any, "anything"),
        (Annotated[int, Field(ge=1, le=256)], "a whole number from 1 to 256"),
        (Annotated[int, Field(ge=64, le=1_048_576)], "a whole number from 64 to 1048576"),
        (Annotated[int, Field(ge=1)], "a whole number of at least 1"),
        (Annotated[int, Field(le=9)], "a whole number of at most 9"),
        (Annotated[int, Field(lt=9)], "a whole number below 9"),
        (Annotated[float, Field(gt=0)], "a number above 0"),
        (Annotated[float, Field(gt=0, lt=0.5)], "a number above 0 and below 0.5"),
        (Annotated[float, Field(gt=0, le=4096)], "a number above 0 up to 4096"),
        (Annotated[float, Field(ge=0, lt=1)], "a number from 0 and below 1"),
        (Share | None, "a number from 0 to 1, or null"),
        (str, "a text"),
        (Annotated[str, Field(min_length=1)], "a text that is not empty"),
        (Annotated[str, Field(min_length=2, max_length=4)], "a text of length at least 2 and at most 4"),
        (Annotated[str, Field(pattern="^a$")], "a text that matches ^a$"),
        (Literal["a", "b"], "one of a, b"),
        (Literal["a"], "a"),
        (Literal["a"] | list[str], "a or a list, each a text"),
        (Annotated[list[int], Field(min_length=1)], "a list that is not empty, each a whole number"),
        (tuple[Share, ...], "a list, each a number from 0 to 1"),
        (dict[str, Share], "a mapping of names to a number from 0 to 1"),
        (One, "a section with method, size"),
        (Either, "a section whose method is one of one, two"),
        (Either | None, "a section whose method is one of one, two, or null"),
    ],
)
def test_words(annotation: Any, words: str) -> None:
    assert type_descriptions.describe_type(type_descriptions.inspect_type(annotation)) == words


class Holder(BaseModel):
    either: Either
    many: dict[str, list[Annotated[One | Two, Field(discriminator="method")]]]
    plain: int | str


@pytest.mark.parametrize(
    ("location", "path", "owner"),
    [
        (("either", "one", "size"), ("either", "size"), One),
        (("many", "x", 0, "two", "name"), ("many", "x", 0, "name"), Two),
        (("plain", "int"), ("plain",), Holder),
        (("nothing",), ("nothing",), Holder),
        (("either",), ("either",), Holder),
    ],
)
def test_tags_in_the_place_of_an_error_are_no_keys(
    location: tuple[Any, ...], path: tuple[Any, ...], owner: type
) -> None:
    place = type_descriptions.resolve_location(Holder, location)
    assert (place.path, place.owner) == (path, owner)
