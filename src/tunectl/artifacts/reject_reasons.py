"""Reasons for rejecting a row: one closed set for all stages.

``RowCounter.finish`` checks it, mypy checks it where a reason is written down, and ``docs/reference/reject-reasons.md`` is made of it.
A new reason gets a line in ``RejectReason`` and one in ``REJECT_REASONS``.
"""

from __future__ import annotations

from typing import Final, Literal

RejectReason = Literal[
    "unreadable", "link_outside", "encrypted", "file_too_big", "binary_file", "wrong_encoding", "unknown_type", "not_a_table", "undeclared_table", "no_text",
    "image_without_text", "http_error", "unreachable", "too_many_redirects", "robots_disallowed", "private_address", "not_json",
    "not_an_object", "broken_quotes", "wrong_cell_count", "wrong_columns", "not_an_example", "too_long", "empty_input",
    "empty_answer", "empty_turn", "unknown_role", "role_order", "last_turn_not_assistant", "tools_not_json",
    "tool_arguments_not_json", "bad_train_flag", "nothing_trained", "wrong_labels", "unknown_split",
    "different_prompts", "bad_margin", "bad_label", "empty", "language", "exact_duplicate", "near_duplicate",
    "document_too_short", "document_too_long", "input_too_short", "input_too_long", "answer_too_short", "answer_too_long",
    "no_letters", "few_letters", "symbols", "repeated_lines", "repeated_words", "boilerplate", "truncated", "placeholder_text",
    "banned_word", "control_token", "echo", "leaks_into_test", "about_a_test_group", "group_in_other_split", "held_out_value",
    "over_represented", "skipped", "taken_back", "duplicate", "contradicts_self", "contradicted", "tied", "attention_check",
    "failed_attention", "over_cap", "same_answer", "prompt_in_answer", "no_answer", "no_separate_answer", "erased",
    "unfinished", "no_chat", "not_text", "quarantined", "not_approved", "in_golden", "user_cap", "annotator_cap",
    "annotator_share", "prompt_cap", "model_text_share", "unknown_person", "template_refuses",
    "feedback_off",
]  # fmt: skip

REJECT_REASONS: Final[dict[RejectReason, str]] = {
    # files and pages
    "unreadable": "The file is damaged, is not what its name says, or is a link without a target.",
    "link_outside": "The file is a link to one outside of what was declared, and of the project, or to one that is hidden there (`.env`, `.tunectl/`).",
    "encrypted": "The file needs a password.",
    "file_too_big": "The file or page has more bytes than `limits.max_file_bytes`, packed or unpacked, or unpacks to 200 times its size.",
    "binary_file": "The file holds no text.",
    "wrong_encoding": "Bytes are invalid in the declared or detected encoding.",
    "unknown_type": "The file name has no known extension.",
    "not_a_table": "The source declares rows, and this type of file has none.",
    "undeclared_table": "The server sends a page as a table, and neither its source's `type` nor its declared address says that it is one.",
    "no_text": "The file or page holds no text.",
    "image_without_text": "The file or page holds pictures and no text; run OCR first.",
    "http_error": "The web server answered with an error status, a redirect to a malformed address, or a body that cannot be unpacked.",
    "unreachable": "The web server did not answer in time, not at all, or for its robots.txt with an error of its own (5xx).",
    "too_many_redirects": "The page redirects too often.",
    "robots_disallowed": "The host's robots.txt forbids the page.",
    "private_address": "The page has an address that is not public; see `fetch.allow_private`.",
    # rows
    "not_json": "The row is not valid JSON.",
    "not_an_object": "The row is JSON, but not an object.",
    "broken_quotes": "A quoted cell of the CSV file is never closed.",
    "wrong_cell_count": "The row has more or fewer cells than the header.",
    "wrong_columns": "The row does not have the columns of the format that it is read as.",
    "not_an_example": "The row is raw text in a source of examples.",
    "too_long": "The row or text is longer than the limit: `limits.max_characters`, 1,000 turns of a conversation, or `max_length` of the stage in tokens.",
    "empty_input": "The input has no text.",
    "empty_answer": "The answer has no text.",
    "empty_turn": "A turn of the conversation has no text and no tool call.",
    "unknown_role": "A turn has a role that is not known.",
    "role_order": "The roles of the conversation are in an impossible order.",
    "last_turn_not_assistant": "The conversation does not end with a turn of the assistant.",
    "tools_not_json": "The list of tools is not valid.",
    "tool_arguments_not_json": "The arguments of a tool call are not a JSON object.",
    "bad_train_flag": "The flag whether a turn is trained on is not true or false.",
    "nothing_trained": "No token of the row is trained on.",
    "unknown_person": "The answer came from a row whose input another row had first, and only the person of that one is known; private training leaves it out.",
    "wrong_labels": "Token ids and labels do not fit together, or the tokenizer has no such id.",
    "unknown_split": "The split column has a value other than train, validation and test.",
    "different_prompts": "The two answers of a comparison do not have the same prompt.",
    "bad_margin": "The margin of a comparison is not a number of 0 or more.",
    "bad_label": "The label of an answer is not true or false.",
    # curate
    "empty": "Nothing is left of the document after repair.",
    "language": "The text is in a language that `curate.language` does not allow.",
    "exact_duplicate": "An earlier record has the same text after normalization.",
    "near_duplicate": "An earlier record has almost the same text.",
    "document_too_short": "The document has fewer words than `curate.quality.documents.min_words`.",
    "document_too_long": "The document has more words than `curate.quality.documents.max_words`.",
    "input_too_short": "The input has fewer words than `curate.quality.inputs.min_words`.",
    "input_too_long": "The input has more words than `curate.quality.inputs.max_words`.",
    "answer_too_short": "The answer has fewer words than `curate.quality.answers.min_words`.",
    "answer_too_long": "The answer has more words than `curate.quality.answers.max_words`.",
    "no_letters": "The text has no letter.",
    "few_letters": "Too few words of the text have a letter.",
    "symbols": "Too many characters of the text are symbols.",
    "repeated_lines": "Too many lines of the text are copies.",
    "repeated_words": "Sequences of words fill too much of the text.",
    "boilerplate": "Too many lines of the text are boilerplate of web pages.",
    "truncated": "The answer ends in the middle of a sentence.",
    "placeholder_text": "The text holds a placeholder, for example lorem ipsum.",
    "banned_word": "The text holds a word of `curate.quality.banned_words`.",
    "control_token": "The text writes a control token of a chat template (`curate.quality.control_tokens`).",
    "echo": "The answer repeats the input.",
    # split
    "leaks_into_test": "The train record holds text of a validation or test record.",
    "about_a_test_group": "The document is about a group whose records are in validation or test.",
    "group_in_other_split": "The record's group is in another split than its split column says.",
    "held_out_value": "The record has a value that `split.hold_out` keeps out of its split.",
    "over_represented": "The record was removed to match the declared population.",
    # preferences
    "skipped": "The annotator skipped the task.",
    "taken_back": "The annotator retracted the judgment.",
    "duplicate": "The annotator gave the same judgment before.",
    "contradicts_self": "The annotator judged the same answers differently before.",
    "contradicted": "Most other annotators judged differently.",
    "tied": "The annotators disagree in equal numbers.",
    "attention_check": "The task was an attention check; it is never trained on.",
    "failed_attention": "The annotator passed too few attention checks (`preferences.min_attention_score`).",
    "over_cap": "The annotator has more judgments than `preferences.max_per_annotator`.",
    "same_answer": "The two answers are the same text, or the same tokens.",
    "prompt_in_answer": "Only one of the two answers repeats the prompt.",
    "feedback_off": "The vote comes from the arena, and `feedback` is `none`: nothing limits what its people teach.",
    # training
    "no_answer": "There is no answer: a response without choices or text, or one that does not end with a turn of the assistant.",
    "template_refuses": "The chat template of the model does not render the conversation, for example two tool calls at once.",
    "no_separate_answer": "Input and answer are one text, so no prompt can be answered.",
    # feedback
    "erased": "Somebody asked for erasure.",
    "unfinished": "The answer never ended.",
    "no_chat": "The request was not a conversation, or was not answered.",
    "not_text": "A turn of the conversation is not plain text.",
    "quarantined": "The feedback, or the vote in the arena, is newer than `feedback.quarantine_hours`.",
    "not_approved": "Nobody approved of the answer, or somebody objected.",
    "in_golden": "The golden set has the same prompt.",
    "user_cap": "The user has more rows than `feedback.max_per_user`.",
    "annotator_cap": "The annotator has more rows than `feedback.max_per_annotator`.",
    "annotator_share": "The annotator has a larger share of all rows than `feedback.max_annotator_share`.",
    "prompt_cap": "The prompt has more rows than `feedback.max_per_prompt`.",
    "model_text_share": "Too many rows were written by the model (`feedback.max_model_text_share`).",
}
"""What each reason means, in the order of the stages."""

WITHHELD: Final[frozenset[RejectReason]] = frozenset(
    ("quarantined", "user_cap", "annotator_cap", "annotator_share", "prompt_cap", "feedback_off")
)
"""Reasons of rows that are valid, and that people sent too many of or too late to count."""
