"""Plays recorded answers to the clients of vLLM or of SGLang and prints what their own code computes.

    python3 peers.py vllm|sglang < answers.json > metrics.json

`answers.json` holds the `protocol`, for vLLM the objectives `slo` in milliseconds if there are any, and
`answers`: of each what `chunks` below plays.

Their modules are taken from the cache that `fetch.py` fills. What these import beyond numpy and the
standard library has no part in the arithmetic and is replaced by names that mean nothing. Each answer
goes through the client's own function for a request: its session is one that brings the recorded
bytes, its clock one that shows when they were read.
"""

import asyncio
import contextlib
import dataclasses
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import sys
import types

from fetch import MODULES, folder


class Nothing(type):
    """The class of names that mean nothing: everything asked of one is another."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return nothing(name)


def nothing(name):
    def accept(self, *_, **__):
        pass

    return Nothing(name, (), {"__init__": accept, "__class_getitem__": lambda _: object})


class Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules that are wanted, and an empty one for whatever else is not arithmetic."""

    def __init__(self, package):
        self.files = {m.removesuffix(".py").replace("/", "."): folder() / m for m in MODULES[package]}

    def find_spec(self, name, path=None, target=None):
        if name in self.files:
            return importlib.util.spec_from_file_location(name, self.files[name])
        top = name.partition(".")[0]
        if top == "numpy" or top in sys.stdlib_module_names:
            return None
        # Every stub is a package, so that modules of it can be imported.
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: Nothing.__getattr__(Nothing("stub", (), {}), name)
        return module

    def exec_module(self, module):
        pass


class Replay:
    """A session and the clock of one request: the answer's bytes, each at its instant."""

    def __init__(self, answer, chunks):
        self.answer, self.chunks, self.status, self.reason = answer, chunks, 200, "OK"
        self.now = (answer["dispatched_ns"] or 0) / 1e9
        self.content = self

    def perf_counter(self):
        return self.now

    def post(self, **_):
        return self

    async def __aenter__(self):
        if self.answer["dispatched_ns"] is None:
            raise ConnectionError("refused")
        return self

    async def __aexit__(self, *_):
        return False

    async def iter_any(self):
        for at, chunk in self.chunks:
            self.now = at / 1e9
            yield chunk
        if not self.answer["completed"]:
            self.now = self.answer["done_ns"] / 1e9
            raise ConnectionError("cut")

    def __aiter__(self):
        return self.iter_any()


def usage(answer, tokens):
    return {"prompt_tokens": answer["prompt_tokens"], "completion_tokens": tokens}


def chunks(answer, protocol):
    """The events of an answer as the server sends them, usage and the end marker last."""
    said, text = 0, ""
    for at, tokens in answer["events"]:
        said, text = said + tokens, text + "x"
        running = usage(answer, said)
        match protocol:
            case "completions":
                event = {"choices": [{"text": "x"}], "usage": running}
            case "chat":
                event = {"choices": [{"delta": {"content": "x"}}], "usage": running}
            case "sglang":
                event = {"text": text, "meta_info": running}
        yield at, line(json.dumps(event))
    if answer["completed"]:
        if answer["ends_with_usage"]:
            event = {"choices": [], "usage": usage(answer, said)}
            yield answer["done_ns"], line(json.dumps(event))
        yield answer["done_ns"], line("[DONE]")


def line(text):
    return f"data: {text}\n\n".encode()


def vllm(answers, protocol, duration, slo):
    request = importlib.import_module("vllm.benchmarks.lib.endpoint_request_func")
    serve = importlib.import_module("vllm.benchmarks.serve")
    serve.TERM_PLOTLIB_AVAILABLE = False
    ask = request.ASYNC_REQUEST_FUNCS[{"completions": "openai", "chat": "openai-chat"}[protocol]]
    outputs = []
    for answer in answers:
        replay = Replay(answer, chunks(answer, protocol))
        request.time = replay
        asked = request.RequestFuncInput(
            prompt="x",
            api_url=f"http://h/v1/{'chat/' * (protocol == 'chat')}completions",
            prompt_len=answer["input_tokens"],
            output_len=answer["output_tokens"],
            model="m",
        )
        outputs.append(asyncio.run(ask(asked, replay)))
    metrics, lengths = serve.calculate_metrics([], outputs, duration, None, [99], slo)
    result = flat(metrics) | {"output_lens": lengths}
    for name, of in [("input_lens", "prompt_len"), ("ttfts", "ttft"), ("itls", "itl"), ("latencies", "latency")]:
        result[name] = [getattr(output, of) for output in outputs]
    return result


def sglang(answers, protocol, duration, _):
    serving = importlib.import_module("sglang.benchmark.serving")
    serving.orjson = types.SimpleNamespace(loads=json.loads)
    off = ["disable_stream", "disable_ignore_eos", "return_logprob", "return_routed_experts"]
    settings = dict.fromkeys(off, False) | {"logprob_start_len": -1, "token_ids_logprob": None}
    settings |= {"temperature": 0.0, "top_p": 1.0, "top_logprobs_num": 0}
    serving.set_global_args(types.SimpleNamespace(**settings))
    ask = {
        "completions": serving.async_request_openai_completions,
        "chat": serving.async_request_openai_chat_completions,
        "sglang": serving.async_request_sglang_generate,
    }[protocol]
    rows, outputs = [], []
    for answer in answers:
        replay = Replay(answer, chunks(answer, protocol))
        serving.time = replay
        serving._create_bench_client_session = lambda: Session(replay)
        asked = serving.RequestFuncInput(
            prompt="x",
            api_url=f"http://h/v1/{'chat/' * (protocol == 'chat')}completions",
            prompt_len=answer["input_tokens"],
            output_len=answer["output_tokens"],
            model="m",
            lora_name="",
            image_data=None,
            extra_request_body={},
        )
        outputs.append(asyncio.run(ask(asked)))
        lengths = {"prompt_len": answer["input_tokens"], "text_prompt_len": 0, "vision_prompt_len": 0}
        rows.append(types.SimpleNamespace(**lengths))
    tokenizer = types.SimpleNamespace(encode=lambda *_, **__: [])
    return flat(serving.calculate_metrics(rows, outputs, duration, tokenizer, protocol)[0])


@dataclasses.dataclass
class Session:
    """What opens a replay's session, which must be opened itself."""

    replay: Replay

    async def __aenter__(self):
        return self.replay

    async def __aexit__(self, *_):
        return False


def flat(metrics):
    """Numbers by the names that they have in the tool's result."""
    names = {"total_input": "total_input_tokens", "total_output": "total_output_tokens"}
    result = {}
    for name, value in dataclasses.asdict(metrics).items():
        if name.startswith("percentiles_"):
            kind = name.removeprefix("percentiles_")
            result.update({f"p{p}_{kind}": float(v) for p, v in value})
        else:
            result[names.get(name, name)] = float(value)
    return result


def main():
    package = sys.argv[1]
    sys.path.insert(0, str(folder() / "site"))
    sys.meta_path.insert(0, Stubs(package))
    given = json.load(sys.stdin)
    answers = given["answers"]
    sent = [a["dispatched_ns"] for a in answers if a["dispatched_ns"] is not None]
    duration = (max(a["done_ns"] for a in answers) - min(sent)) / 1e9
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        compute = {"vllm": vllm, "sglang": sglang}[package]
        result = compute(answers, given["protocol"], duration, given.get("slo") or {})
    json.dump(result | {"duration": duration}, sys.stdout)


if __name__ == "__main__":
    main()
