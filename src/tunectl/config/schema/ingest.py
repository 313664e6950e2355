"""The ingest section: the raw sources, and how each is read.

``sources`` is a mapping, because Hydra merges mappings and not lists. A source starts from the values of
``conf/ingest/source/files.yaml``, ``urls.yaml`` or ``hub.yaml`` and changes only what differs.
"""

from __future__ import annotations

import codecs
from string import Formatter
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from tunectl.config.schema.base import StrictModel

SourceName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Column = Annotated[str, Field(min_length=1)]
Url = Annotated[str, Field(pattern=r"^https?://[^\s/]+\S*$")]
FileType = Literal[
    "auto", "html", "pdf", "docx", "markdown", "text", "lines", "csv", "tsv", "json", "jsonl", "parquet", "arrow"
]
FormatName = Literal[
    "auto",
    "text",
    "columns",
    "prompt_completion",
    "alpaca",
    "openorca",
    "article_question",
    "query_response",
    "messages",
    "sharegpt",
    "sharegpt_pairs",
    "segments",
    "production_log",
    "tokens",
]


def _validate_encoding(name: str) -> str:
    try:
        codecs.lookup(name)
        "".encode(name)  # hex, zip and the like are codecs, but of no text
    except (LookupError, UnicodeError) as error:
        raise ValueError(f"{name!r} is not an encoding; for example cp1252, latin-1, utf-16") from error
    return name


def _fillable(template: str) -> str:
    """Check the braces of a prompt template; doubled braces are plain ones."""
    try:
        pieces = [piece for piece in Formatter().parse(template) if piece[1] is not None]
    except ValueError as error:
        raise ValueError(f"{template!r} cannot be filled: {error}; write a plain brace twice, {{{{ or }}}}") from error
    if not pieces or not all(name for _, name, _, _ in pieces):
        raise ValueError(f"{template!r} needs a placeholder: {{prompt}} or {{column}}")
    if any(spec or conversion for _, _, spec, conversion in pieces):
        raise ValueError(f"{template!r} may only name columns; write a plain brace twice, {{{{ or }}}}")
    return template


class PromptTemplate(StrictModel):
    """Texts that are put around the input of every example of a source."""

    template: Annotated[str, AfterValidator(_fillable)] | None
    """The last user turn: ``{prompt}`` stands for the input of the row, ``{column}`` for a column of the row. Null: the input alone."""
    system: str | None = Field(min_length=1)
    """System turn of every example that has none of its own. Null: none is added here; ``sft.system``, else ``model.system`` holds then."""


class ColumnMapping(StrictModel):
    """Columns of a source by their meaning, where their names do not tell it. Nested columns have dots."""

    text: list[Column] | None
    """Columns with the raw text of documents; several are joined with an empty line between them."""
    prompt: list[Column] | None
    """Columns with the input of examples; several are joined with an empty line between them."""
    answer: Column | None
    """Column with the reference answer of examples."""
    system: Column | None
    """Column with the system turn of examples."""
    split: Column | None
    """Column with train, validation or test. Null: a column called split with such values."""

    @property
    def has_columns(self) -> bool:
        """Whether any column is named."""
        return any(value is not None for value in (self.text, self.prompt, self.answer, self.system))

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        if (self.prompt is None) != (self.answer is None):
            missing = "prompt" if self.prompt is None else "answer"
            raise ValueError(f"prompt and answer go together, and {missing} is null; set both or neither")
        if self.text is not None and self.prompt is not None:
            raise ValueError("text (of documents) and prompt (of examples) are both set; set one of them to null")
        if self.prompt is None and self.system is not None:
            raise ValueError(
                f"system is {self.system}, and prompt and answer are null; set these too, or system to null"
            )
        return self


class RowLimits(StrictModel):
    """Limits of one source, so that a wrong path is noticed before it fills the disk."""

    max_rows: int = Field(ge=1)
    """Rows at most; more is an error."""
    max_characters: int = Field(ge=1)
    """Characters at most; a longer document or conversation is rejected as ``too_long``."""


class PageLimits(RowLimits):
    """Limits on the rows of a source and on the size of its web pages."""

    max_file_bytes: int = Field(ge=1)
    """Bytes at most, packed and unpacked; a larger file or page is rejected as ``file_too_big``."""


class FileLimits(PageLimits):
    """Limits on the rows of a source, and on the size and number of its files."""

    max_files: int = Field(ge=1, le=10_000_000)
    """Files at most; more is an error."""


class Fetch(StrictModel):
    """Fetching of declared web addresses. robots.txt is always obeyed; unchanged pages come from the cache."""

    user_agent: str = Field(min_length=1)
    """User agent sent with every request; add an address where site owners can reach you."""
    delay_seconds: float = Field(ge=0, le=600)
    """Pause between requests to one host; a longer crawl-delay of its robots.txt wins, up to 60 s. Where it asks for more than
    that, and than this, its pages are rejected as ``robots_disallowed``."""
    timeout_seconds: float = Field(gt=0, le=600)
    """Longest wait for a connection or the next bytes; a whole response may take three times as long."""
    retries: int = Field(ge=0, le=10)
    """Retries after a lost connection, or status 429, 500, 502, 503 or 504."""
    allow_private: bool
    """Whether addresses that are not public may be fetched: of this machine, of the local network, of a cloud's metadata.
    False: they are rejected as ``private_address``, also where a public page redirects to them."""


class RowOptions(StrictModel):
    """Meaning of a source's rows: format, columns, fields and limits."""

    holds: Literal["auto", "documents", "examples"]
    """documents: raw text. examples: input and answer. auto: examples where the columns say so, else documents."""
    format: FormatName
    """Meaning of the columns. auto: by their names; the decision is printed, and written to decisions.json. Tool calls are
    written as the chat template does it; where it does not, as JSON between ``<tool_call>`` tags (Hermes)."""
    columns: ColumnMapping
    """Columns by meaning, whatever their names; all null: as the format defines them."""
    fields: dict[Column, Column]
    """Name to column, kept with each record for slices and balance. Nested columns have dots; files and pages offer
    ``file``, ``folder``, ``title``, ``date``, ``author``, ``site`` and ``page`` where they are known."""
    prompt: PromptTemplate
    """Text put around the input of every example."""
    merge_references: bool
    """Make one example with several answers of the rows that have the same input."""
    limits: RowLimits
    """Bounds on size and count."""

    @model_validator(mode="after")
    def _check_format(self) -> Self:
        if self.format == "columns" and not self.columns.has_columns:
            raise ValueError(
                "format is columns, but no column is set; for example columns: {prompt: [mr], answer: ref}"
            )
        if self.format not in {"auto", "columns"} and (self.columns.text or self.columns.prompt):
            raise ValueError(
                f"format is {self.format}, and columns.text or columns.prompt is set; set format to columns, or these to null"
            )
        if self.columns.prompt is not None and self.holds == "documents":
            raise ValueError(
                "holds is documents, but columns.prompt and columns.answer are set; set columns.text instead"
            )
        return self


class FileOptions(StrictModel):
    """Reading of a source's files: type, encoding and limits."""

    type: FileType
    """Type of file. auto: by extension, checked against the first bytes."""
    encoding: Annotated[str, AfterValidator(_validate_encoding)] | None
    """Encoding of text files. Null: UTF-8, else an error that names a likely encoding."""
    limits: PageLimits
    """Bounds on size and count."""


class FileReading(RowOptions, FileOptions):
    """Options of a source of files or pages: how they are opened, and what their rows mean."""

    limits: PageLimits
    """Bounds on size and count."""


class FileSource(FileReading):
    """A file, a folder with everything below it, or a glob, as one source."""

    method: Literal["files"]
    """Name of this kind of source."""
    path: str = Field(min_length=1)
    """Relative to the project. A glob may use ``*``, ``?``, ``[...]`` and ``**``."""
    limits: FileLimits
    """Bounds on size and count."""


class UrlSource(FileReading):
    """A list of web pages that are fetched and read."""

    method: Literal["urls"]
    """Name of this kind of source."""
    urls: list[Url] = Field(min_length=1)
    """Addresses, http or https; links on the pages are not followed. ``tunectl data refresh`` asks whether they changed."""
    fetch: Fetch
    """How the pages are fetched."""


class HubDataset(RowOptions):
    """A data set of the Hugging Face Hub."""

    method: Literal["hub"]
    """Name of this kind of source."""
    id: str = Field(min_length=1)
    """Owner and name of the data set, for example ``tuetschek/e2e_nlg``."""
    revision: str = Field(min_length=1)
    """Commit or tag; a branch would give other rows on another day."""
    subset: str | None
    """Named configuration of the data set. Null: its only one."""
    split: str | None
    """Name of the split to read. Null: all; rows of splits called train, validation and test stay in these."""


DataSource = Annotated[FileSource | UrlSource | HubDataset, Field(discriminator="method")]


class Ingest(StrictModel):
    """The section ``ingest``: the raw sources of the project."""

    sources: dict[SourceName, DataSource] = Field(min_length=1)
    """Sources by name. The name is stored with every record, as its ``kind``."""
    max_rejected_share: float = Field(ge=0, le=1)
    """Share of all rows rejected above which the stage fails."""


class IngestStage(StrictModel):
    """Sections of the configuration that the stage ingest reads, from ``artifacts/config/ingest.json``."""

    ingest: Ingest
    """The section of this stage."""
