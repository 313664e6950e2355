"""lm-eval's OpenAI-compatible models against a real server, on a generation task of our own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from serving_process import Server

TASK = """
task: tiny_say
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: 4, do_sample: false, temperature: 0.0}}
metric_list: [{{metric: exact_match}}]
"""


@pytest.mark.parametrize(
    ("kind", "route"), [("local-chat-completions", "chat/completions"), ("local-completions", "completions")]
)
def test_a_generation_task(server: Server, tmp_path: Path, kind: str, route: str) -> None:
    chat = kind == "local-chat-completions"
    body = {"model": "shop", "max_tokens": 4, "temperature": 0}
    body |= {"messages": [{"role": "user", "content": "Hi"}]} if chat else {"prompt": "Hi"}
    choice = json.loads(server.call(f"/v1/{route}", body)[2])["choices"][0]
    said = choice["message"]["content"] if chat else choice["text"]
    (tmp_path / "data.json").write_text(json.dumps({"question": "Hi", "answer": said}) + "\n")
    (tmp_path / "tiny_say.yaml").write_text(TASK.format(data=tmp_path / "data.json"))
    arguments = f"model=shop,base_url={server.address}/v1/{route},tokenizer_backend=None,tokenized_requests=False,num_concurrent=1,max_retries=1"
    words = [
        "--model",
        kind,
        "--model_args",
        arguments,
        "--tasks",
        "tiny_say",
        "--include_path",
        str(tmp_path),
        "--output_path",
        str(tmp_path / "out"),
    ]
    env = {**os.environ, "OPENAI_API_KEY": server.keys["chat"], "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    words += ["--apply_chat_template"] if chat else []
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", *words], env=env, capture_output=True, text=True, timeout=280, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = (tmp_path / "out").rglob("results*.json")
    assert json.loads(results.read_text())["results"]["tiny_say"]["exact_match,none"] == 1.0
