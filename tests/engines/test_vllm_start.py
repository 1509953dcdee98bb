"""VLLM around its start: identity without vLLM, errors that say what to do, no orphans."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helium_agents.engines.engine import Choice
from helium_agents.engines.engine_log import EngineLog
from helium_agents.engines.random_model import random_model_dir
from helium_agents.engines.vllm import VLLM
from helium_agents.engines.vllm.settings import Settings
from helium_agents.errors import EngineError, EngineStartError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def model(cache_home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(random_model_dir(), tmp_path / "model"))


@pytest.fixture
def hub(cache_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face cache that holds the random model as `org/name`, branch `main`."""
    repository = tmp_path / "hub" / "models--org--name"
    shutil.copytree(random_model_dir(), repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return repository


def run_script(text: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(text)
    return subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)


# --- identity ----------------------------------------------------------------------------------

IDENTITY_SCRIPT = """
import sys
from helium_agents.engines.engine import Choice
from helium_agents.engines.vllm import VLLM
engine = VLLM("random")
print(engine.identity())
engine.truncate(Choice("", (1, 2, 3), "length"), 2)
print([name for name in ("vllm", "torch", "transformers", "numpy") if name in sys.modules])
"""


def test_identity_and_truncate_import_nothing_heavy(cache_home: Path, tmp_path: Path) -> None:
    random_model_dir()  # making it takes numpy
    result = run_script(IDENTITY_SCRIPT, tmp_path)
    assert result.stdout == VLLM("random").identity() + "\n[]\n", result.stderr


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("tokenizer.json", lambda text: text.replace("NFC", "NFD")),
        ("tokenizer_config.json", lambda text: text.replace("assistant", "model")),
        ("generation_config.json", lambda text: text.replace("eos", "no")),
        ("model.safetensors", None),
    ],
)
def test_every_file_of_the_model_counts(model: Path, file: str, change: object) -> None:
    before = VLLM(model).identity()
    assert before == VLLM(str(model)).identity()
    if callable(change):
        (model / file).write_text(change((model / file).read_text()))
    else:
        weights = bytearray((model / file).read_bytes())
        weights[-1] ^= 1
        (model / file).write_bytes(weights)
        os.utime(model / file, ns=(0, time.time_ns()))
    assert VLLM(model).identity() != before


def test_what_decides_an_answer_counts_and_what_does_not_does_not(model: Path) -> None:
    before = VLLM(model).identity()
    (model / "README.md").write_text("notes")
    assert VLLM(model, kv_tokens=8192, max_requests=3, name="mine").identity() == before
    assert VLLM(model, gpu_memory_utilization=0.5, scheduler_cls="a.B").identity() == before
    different = [
        VLLM(model, dtype="bfloat16"),
        VLLM(model, max_model_tokens=4096),
        VLLM(model, quantization="fp8"),
        VLLM(model, chat_template_kwargs={"enable_thinking": False}),
        VLLM(model, tokenizer=str(model)),
    ]
    assert len({before, *(engine.identity() for engine in different)}) == 6


def test_the_vllm_version_counts(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = VLLM(model).identity()
    monkeypatch.setattr("helium_agents.engines.vllm.settings.version", lambda name: "9.9.9+cpu")
    assert VLLM(model).identity() != before


def test_a_path_among_the_arguments_counts_by_its_content(model: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"one")
    before = VLLM(model, lora_modules=[{"path": str(adapter)}]).identity()
    assert VLLM(model, lora_modules=[{"path": str(adapter)}]).identity() == before
    (adapter / "adapter_model.safetensors").write_bytes(b"two")
    assert VLLM(model, lora_modules=[{"path": str(adapter)}]).identity() != before


def test_the_date_counts_where_the_template_shows_it(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undated = VLLM(model).identity()
    config = json.loads((model / "tokenizer_config.json").read_text())
    config["chat_template"] += "{{ strftime_now('%d %b %Y') }}"
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    today, tomorrow = VLLM(model), VLLM(model)
    tomorrow._today = today._today.replace(year=today._today.year + 1)
    assert len({undated, today.identity(), tomorrow.identity()}) == 3


def test_a_hub_model_is_its_commit(hub: Path) -> None:
    engine = VLLM("org/name")
    assert (engine.name, engine._source.revision) == ("name", COMMIT)
    assert engine.identity() == VLLM("org/name", revision=COMMIT).identity()
    arguments = engine._settings.engine_arguments(engine._source)
    assert arguments["revision"] == arguments["tokenizer_revision"] == COMMIT
    (hub / "refs" / "main").write_text(COMMIT[::-1])
    assert VLLM("org/name").identity() != engine.identity()


def test_without_vllm_who_names_a_hub_model_is_told_what_to_do(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # which it brings
    with pytest.raises(EngineStartError, match=r"'org/other'.*--server.*helium_agents\[vllm\]"):
        VLLM("org/other").identity()


def test_truncation_works_for_a_hub_model(hub: Path) -> None:
    engine = VLLM("org/name")
    ids = tuple(engine._truncator._tokenizer.encode(" the market").ids)  # type: ignore[union-attr]
    cut = engine.truncate(Choice(" the market", ids, "length"), 1)
    assert cut == Choice(" the", ids[:1], "length")


# --- start errors ------------------------------------------------------------------------------


def test_wrong_models_are_named(cache_home: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for model, message in [
        (tmp_path / "nothing", "there is no model directory .*nothing"),
        ("./nothing", "there is no model directory nothing"),
        (tmp_path / "empty", "empty is not a model directory: it has no config.json"),
        ("org/unknown", r"(?s)org/unknown.*not in the local Hugging Face cache.*hf download"),
    ]:
        with pytest.raises(EngineStartError, match=message):
            VLLM(model).identity()
        with pytest.raises(EngineStartError, match=message):
            asyncio.run(VLLM(model).start())


def test_a_limit_beyond_the_cache_is_refused_at_once() -> None:
    with pytest.raises(EngineStartError, match=r"max_model_tokens=4096 .* kv_tokens=2048"):
        VLLM(max_model_tokens=4096, kv_tokens=2048)


def test_missing_vllm_says_what_to_install(
    cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineStartError, match=r"pip install 'helium_agents\[vllm\]'"):
        asyncio.run(VLLM("random").start())


async def test_an_engine_that_is_not_started_says_so() -> None:
    engine = VLLM("random")
    assert (engine.is_started, engine.capacity) == (False, None)
    await engine.close()
    with pytest.raises(EngineError, match="'random' is not started"):
        await engine.render([])


def test_the_cpu_cache_is_sized_by_the_user_first(
    cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = VLLM("random")._source
    monkeypatch.setattr("helium_agents.engines.vllm.settings.is_cpu_build", lambda: True)
    assert Settings(None).engine_arguments(source)["num_gpu_blocks_override"] == 1025
    assert Settings("random").engine_arguments(source)["num_gpu_blocks_override"] == 2049
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "4")
    assert "num_gpu_blocks_override" not in Settings(None).engine_arguments(source)
    chosen = Settings(None, kv_tokens=1000).engine_arguments(source)
    assert chosen["num_gpu_blocks_override"] == 33


UNGUARDED_SCRIPT = """
import asyncio
from helium_agents.engines.vllm import VLLM
from helium_agents.errors import EngineStartError

async def main():
    try:
        await VLLM("random").start()
    except EngineStartError as error:
        print(error)

asyncio.run(main())
"""


@pytest.mark.engine
def test_a_script_without_a_main_guard_is_told(cache_home: Path, tmp_path: Path) -> None:
    result = run_script(UNGUARDED_SCRIPT, tmp_path)
    assert result.stdout.count('if __name__ == "__main__":') == 1, result.stdout + result.stderr
    assert "script.py starts an engine while it is imported" in result.stdout
    assert result.stderr == ""


# --- what the engine's processes say -------------------------------------------------------------


@pytest.mark.engine
def test_a_model_that_does_not_load_is_explained_in_a_line(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").unlink()
    (tmp_path / "flow.py").write_text(
        "from helium_agents import llm, user\n\n\n"
        "async def ask(row: str) -> str:\n    return (await llm(user(row))).text\n"
    )
    (tmp_path / "rows.jsonl").write_text('"Hello"\n')
    command = [sys.executable, "-m", "helium_agents.cli", "run", "flow.py:ask", "--model", model]
    result = subprocess.run(
        [*command, "--input", "rows.jsonl", "--output", "out.jsonl"],
        capture_output=True, text=True, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 1
    assert "error: vLLM's engine process ended while it was starting" in result.stderr
    assert f"Cannot find any model weights with `{model}`" in result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_the_first_exception_of_a_log_is_the_cause() -> None:
    log = EngineLog()
    Path(log.path).write_text(
        "(Worker pid=7) ERROR 11-21 [executor.py:9] Traceback (most recent call last):\n"
        "(Worker pid=7) ERROR 11-21 [executor.py:9]     raise RuntimeError(\n"
        "(Worker pid=7) ERROR 11-21 [executor.py:9] RuntimeError: no weights in [/m]\n"
        "Exception: WorkerProc initialization failed\n"
    )
    assert log.cause() == "RuntimeError: no weights in [/m]"
    log.close()
    log.close()
    assert log.cause() is None
