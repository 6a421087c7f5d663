"""The engine against a `vllm serve` that runs beside it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cort_framework as cort
from cort_framework.errors import EngineError
from cort_framework.testing import check_engine

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

Make = Callable[..., Path]
SAMPLING = cort.Sampling(temperature=1.0, top_p=1.0, max_tokens=20, seed=1)
READY_S = 400
UNTIED = {"tie_word_embeddings": False, "max_position_embeddings": 8192}


@pytest.fixture(scope="module")
def url(checkpoint: Make, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server whose model does not tie its head to its embeddings."""
    pytest.importorskip("vllm")
    import httpx

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, log = f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("server") / "log"
    command = [
        # `vllm serve` itself asks for a distribution `vllm`, which the one for a CPU is not
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint(**UNTIED))),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"),
        *("--kv-cache-memory-bytes", str(100 << 20), "--logprobs-mode", "processed_logprobs"),
        *("--worker-extension-cls", "cort_vllm.worker.Reloading"),
        *("--weight-transfer-config", '{"backend": "gloo"}'),
    ]
    environment = {**os.environ, "VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with log.open("w") as lines:
        server = subprocess.Popen(
            command, env=environment, stdout=lines, stderr=lines, start_new_session=True
        )
    try:
        until = time.monotonic() + READY_S
        while True:
            assert server.poll() is None and time.monotonic() < until, log.read_text()[-3000:]
            try:
                if httpx.get(f"{address}/health").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        try:
            server.wait(30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)


def served(url: str, live: Any, tmp_path: Path) -> Any:
    from cort_vllm.engine import VllmEngine

    made = VllmEngine(VllmEngine.Config(url=url))
    live(made.open(cort.OpenContext(tmp_path)))
    return made


def test_a_served_engine_keeps_the_contract_of_engines(url: str, checkpoint: Make) -> None:
    from cort_vllm.engine import VllmEngine

    check_engine(VllmEngine, str(checkpoint(**UNTIED)), {"url": url})


def test_a_served_engine_gives_what_one_in_processes_of_its_own_gives(
    url: str, engine: Any, live: Any, checkpoint: Make, tmp_path: Path
) -> None:
    other = served(url, live, tmp_path)

    async def run() -> None:
        made = []
        for e in (engine, other):
            await e.load_weights(cort.Weights(str(checkpoint(**UNTIED)), version=4))
            calls = [
                e.generate([5, 6, s], SAMPLING.replace(seed=s, max_tokens=60, stop=("e", "1")))
                for s in range(8)
            ]
            made.append(await asyncio.gather(*calls))
        await other.close()
        for ours, theirs in zip(*made, strict=True):
            assert (ours.ids, ours.stop, ours.weights_version) == (theirs.ids, theirs.stop, 4)
            assert max(abs(a - b) for a, b in zip(ours.logprobs, theirs.logprobs, strict=True)) < 1e-4
        assert {one.stop for one in made[0]} >= {"stop"}

    live(run())


def test_a_served_engine_takes_new_weights_and_proves_them(
    url: str, live: Any, checkpoint: Make, tmp_path: Path
) -> None:
    engine = served(url, live, tmp_path)

    async def run() -> None:
        made = []
        for spread in (0.2, 0.3, 0.2):
            await engine.load_weights(cort.Weights(str(checkpoint(spread=spread, **UNTIED))))
            assert engine.load_gap < 2e-5
            made.append(await engine.generate([5, 6, 7], SAMPLING))
        await engine.close()
        assert made[0].logprobs != made[1].logprobs
        assert made[0].ids == made[2].ids

    live(run())


def test_a_served_engine_takes_a_trainers_live_weights_from_the_first_process_alone(
    url: str, live: Any, checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    first, second = served(url, live, tmp_path), served(url, live, tmp_path)
    began = str(checkpoint(**UNTIED))
    policies = [AutoModelForCausalLM.from_pretrained(checkpoint(spread=s, **UNTIED)) for s in (0.3, 0.2)]

    async def run() -> None:
        await first.load_weights(cort.Weights(began))
        with monkeypatch.context() as patch:
            patch.setenv("RANK", "1")  # as in a training of two processes
            await second.load_weights(cort.Weights(began))
        made = [await first.generate([5, 6, 7], SAMPLING)]
        for version, policy in enumerate(policies, 1):
            waiting = asyncio.create_task(second.load_weights(cort.Weights(began, policy, version)))
            await asyncio.sleep(0.5)
            assert not waiting.done()
            await first.load_weights(cort.Weights(began, policy, version))
            assert 0 < first.load_gap < 2e-5
            await waiting
            ours, theirs = [await e.generate([5, 6, 7], SAMPLING) for e in (first, second)]
            assert ours.weights_version == version and ours == theirs
            made.append(ours)
        assert made[0].logprobs != made[1].logprobs
        assert made[0].ids == made[2].ids
        await first.close()
        await second.close()

    live(run())


def test_cancelled_calls_leave_nothing_running_on_the_server(
    url: str, live: Any, checkpoint: Make, tmp_path: Path
) -> None:
    import httpx

    engine = served(url, live, tmp_path)

    async def count(client: httpx.AsyncClient) -> float:
        lines = (await client.get("/metrics")).text.splitlines()
        return sum(
            float(line.split()[-1])
            for line in lines
            if line.startswith("vllm:request_success_total") and 'finished_reason="length"' in line
        )

    async def finished(client: httpx.AsyncClient) -> float:
        """Once it is settled: the server counts a request after it has answered it."""
        before = -1.0
        while before != (now := await count(client)):
            before = now
            await asyncio.sleep(1)
        return now

    async def run() -> None:
        await engine.load_weights(cort.Weights(str(checkpoint(**UNTIED))))
        engine.tokenizer.eos_ids = frozenset()
        generate, under_way = engine._backend.generate, set[int]()

        async def seen(ids: Any, *rest: Any) -> Any:
            async for part in generate(ids, *rest):
                under_way.add(ids[-1])
                yield part

        engine._backend.generate = seen
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            before = await finished(client)
            calls = [
                asyncio.create_task(engine.generate([5, s], cort.Sampling(1.0, 1.0, 8000, seed=s)))
                for s in range(2)
            ]
            while len(under_way) < len(calls):
                await asyncio.sleep(0.01)
            await client.post(
                "/pause", params={"mode": "keep"}
            )  # or they might be done before they are cancelled
            assert await finished(client) == before
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            assert all(call.cancelled() for call in calls)
            await client.post("/resume")
            await engine.generate([9], cort.Sampling(1.0, 1.0, 3))
            while not (await client.post("/reset_prefix_cache")).json()["success"]:  # a request holds a block
                await asyncio.sleep(0.01)
            assert await finished(client) == before + 1  # the short one alone came to its end
        await engine.close()

    live(run())


def test_another_model_than_the_servers_and_no_server_at_all_are_errors(
    url: str, live: Any, checkpoint: Make, tmp_path: Path
) -> None:
    engine = served(url, live, tmp_path)
    live(engine.load_weights(cort.Weights(str(checkpoint(**UNTIED)))))
    with pytest.raises(cort.RequestError, match="another model than the one that vLLM at"):
        live(engine.load_weights(cort.Weights(str(checkpoint(num_hidden_layers=1)))))
    live(engine.close())

    nowhere = served("http://127.0.0.1:9", live, tmp_path)
    with pytest.raises(EngineError, match="cannot be reached"):
        live(nowhere.load_weights(cort.Weights(str(checkpoint()))))
    live(nowhere.close())


def test_the_engine_openai_keeps_the_ids_and_log_probs_that_vllm_sends(
    url: str, live: Any, checkpoint: Make, tmp_path: Path
) -> None:
    from cort_openai.engine import OpenAIEngine

    folder = cort.Weights(str(checkpoint(**UNTIED)))
    engine, other = served(url, live, tmp_path), OpenAIEngine(OpenAIEngine.Config(url=f"{url}/v1"))
    greedy = SAMPLING.replace(temperature=0, max_tokens=40)

    async def run() -> None:
        await engine.load_weights(folder)
        await other.load_weights(folder)
        for sampling in (greedy, greedy.replace(stop=("e", "1"))):
            ours, theirs = [await e.generate([5, 6, 7], sampling) for e in (engine, other)]
            shared = min(len(ours.ids), len(theirs.ids))  # a server may be some tokens past a stop string
            assert ours.stop == theirs.stop and theirs.ids[:shared] == ours.ids[:shared]
            assert ours.logprobs is not None and theirs.logprobs is not None
            assert theirs.logprobs[:shared] == pytest.approx(ours.logprobs[:shared], abs=1e-4)
        await engine.close()
        await other.close()

    live(run())
