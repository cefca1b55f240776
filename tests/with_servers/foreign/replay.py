"""Answers as SGLang, vLLM, LMDeploy or TensorRT-LLM do, as far as a launch asks. What the first two say was written
down from real ones, what the others say from their code and documents: neither was ever run here.

    python3 replay.py HOW [flags of the server]

HOW is `serves`, `deaf` (healthy, and never makes a token), `stuck` (slow, and tells no metrics any more once it has
load) or `dies` (with the last line of `--last-words`); `lmdeploy` and `trtllm` serve as those do. Whatever flags say is what it tells that it applied, except those that
`--ignores NAME=VALUE` names.

Its profiler is SGLang's, or vLLM's where `--profiler-config` describes one: opened and closed at the routes of both, its
steps are the requests that come meanwhile, and each trace is written in two pieces, the second with the next request.

A rank beside the first meets it where its flags say and stays as long as it is there: it answers at its own port
as SGLang's does, or nowhere if it is `--headless`. The first serves once all others have met it, and ends when one
of them leaves, unless it is told to `--outlive` them. A rank that `--dies-as NUMBER` names dies, with the last line
of `--last-words`, once all have met and `--dies-when FILE` is there.
"""

import gzip
import http.server
import json
import os
import socket
import sys
import threading
import time


def flags(words):
    """The flags by their names: what is bare is true, `--no-x` is `x` off."""
    found, name = {}, None
    for word in words:
        if word.startswith("--no-"):
            found[word[5:].replace("-", "_")] = False
        elif word.startswith("--"):
            name = word[2:].replace("-", "_")
            found[name] = True
        elif name:
            found[name] = word
    return found


HOW, GIVEN = sys.argv[1], flags(sys.argv[2:])
APPLIED = {
    "version": "0.5.23",
    "disable_radix_cache": False,
    "schedule_policy": "fcfs",
    **GIVEN,
    **dict(pair.split("=") for pair in [GIVEN.get("ignores", "ignores=")]),
}
SGLANG_METRICS = """# HELP sglang:prompt_tokens_total Number of prefill tokens processed.
# TYPE sglang:prompt_tokens_total counter
sglang:prompt_tokens_total{model_name="replayed"} %d.0
sglang:cached_tokens_total{cache_source="device",model_name="replayed"} %d.0
sglang:generation_tokens_total{model_name="replayed"} %d.0
"""
LMDEPLOY_METRICS = """# TYPE lmdeploy:prompt_tokens_total counter
lmdeploy:prompt_tokens_total{engine="0",model_name="replayed"} %d.0
lmdeploy:cached_tokens_total{engine="0",model_name="replayed"} %d.0
lmdeploy:generation_tokens_total{engine="0",model_name="replayed"} %d.0
"""
TRTLLM_METRICS = """# TYPE trtllm_prompt_tokens_total counter
trtllm_prompt_tokens_total{engine_type="undefined",model_name="undefined"} %d.0
trtllm_prompt_cached_tokens_total{engine_type="undefined",model_name="undefined"} %d.0
trtllm_generation_tokens_total{engine_type="undefined",model_name="undefined"} %d.0
trtllm_parallel_config_info{gpu_count="1",pipeline_parallel_size="1",tensor_parallel_size="TP"} 1.0
trtllm_kv_cache_config_info{cache_dtype="auto",enable_block_reuse="REUSE",page_size="32"} 1.0
"""
COUNTS = [0, 0, 0]
LOADED = []


class Profiler:
    """A window that is open, if one is."""

    def __init__(self):
        self.lock = threading.Lock()
        self.vllm = json.loads(GIVEN.get("profiler_config", "null"))
        self.window, self.is_used, self.unwritten, self.windows = None, False, [], 0

    def open(self, asked):
        """The status, and what is said."""
        with self.lock:
            print("asked to profile:", json.dumps(asked), file=sys.stderr, flush=True)
            if self.window or self.is_used:
                return 500, "Profiling is already in progress. Call /stop_profile first."
            self.windows += 1
            self.is_used = bool(self.vllm)
            steps = asked.get("max_iterations" if self.vllm else "num_steps")
            stages = ["-EXTEND", "-DECODE"] if asked.get("profile_by_stage") else [""]
            self.window = {"folder": asked.get("output_dir"), "left": steps, "stages": stages}
            return 200, "Start profiling.\n"

    def step(self):
        with self.lock:
            for path, rest in self.unwritten:
                with open(path, "ab") as file:
                    file.write(rest)
            self.unwritten = []
            if self.window and self.window["left"]:
                self.window["left"] -= 1
                if self.window["left"] == 0:
                    self.write(is_whole=False)

    def close(self):
        with self.lock:
            was_open, self.is_used = bool(self.window), False
            if was_open:
                self.write(is_whole=True)
            return (200, "Stop profiling.\n") if was_open or self.vllm else (500, "Profiling is not in progress.")

    def write(self, is_whole):
        if self.vllm:
            folder, names = self.vllm["torch_profiler_dir"], [f"dp0_pp0_tp0_rank0.{self.windows}.pt"]
        else:
            folder = self.window["folder"]
            names = [f"{self.windows}.5-TP-0{stage}" for stage in self.window["stages"]]
        os.makedirs(folder, exist_ok=True)
        for name in names:
            path = os.path.join(folder, f"{name}.trace.json.gz")
            packed = gzip.compress(json.dumps(TRACE).encode())
            cut = len(packed) if is_whole else len(packed) // 2
            with open(path, "wb") as file:
                file.write(packed[:cut])
            if not is_whole:
                self.unwritten.append((path, packed[cut:]))
        self.window = None


def event(category, name, begins, lasts):
    return {"ph": "X", "cat": category, "name": name, "pid": 1, "tid": 1, "ts": begins, "dur": lasts}


TRACE = {
    "traceEvents": [
        event("cpu_op", "aten::linear", 0, 100),
        event("cpu_op", "aten::addmm", 10, 75),
        event("kernel", "gemm", 20, 40),
    ]
}
PROFILER = Profiler()


def answers():
    """What is answered to GET, by path."""
    models = {"data": [{"id": "replayed"}]}
    if HOW == "lmdeploy":
        health = {"status": "healthy", "message": "replayed"}
        return {"/health": health, "/v1/models": models, "/metrics": LMDEPLOY_METRICS % tuple(COUNTS)}
    if HOW == "trtllm":
        with open(GIVEN["extra_llm_api_options"], encoding="utf-8") as file:
            options = json.load(file)
        tp = GIVEN.get("tp_size", "1")
        reuse = str(options["kv_cache_config"]["enable_block_reuse"])
        metrics = (TRTLLM_METRICS % tuple(COUNTS)).replace("TP", APPLIED.get("tensor_parallel_size", tp))
        found = {
            "/health": "",
            "/v1/models": models,
            "/version": {"version": "1.2.1"},
            "/metrics": [],
            "/server_info": {"disaggregated_params": None},
        }
        if options.get("return_perf_metrics"):
            found["/prometheus/metrics"] = metrics.replace("REUSE", reuse)
        return found
    return {
        "/health": "",
        "/v1/models": models,
        "/server_info": APPLIED,
        "/version": {"version": "0.32.0"},
        "/metrics": SGLANG_METRICS % tuple(COUNTS),
    }


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def say(self, status, body, kind="application/json"):
        body = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path = self.path.split("?")[0]
        if HOW == "stuck" and LOADED and path == "/metrics":
            time.sleep(600)
        if RANK > 0:
            return self.say(200 if path == "/health" else 404, "")
        found = answers()
        return self.say(200 if path in found else 404, found.get(path, "no"))

    def do_POST(self):
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length)
        if self.path in ("/flush_cache", "/reset_prefix_cache") and HOW in ("lmdeploy", "trtllm"):
            return self.say(404, {"detail": "Not Found"})
        if self.path == "/start_profile" and HOW == "serves":
            return self.say(*PROFILER.open(json.loads(body or b"{}")), "text/plain")
        if self.path == "/stop_profile" and HOW == "serves":
            return self.say(*PROFILER.close(), "text/plain")
        if self.path == "/flush_cache":
            return self.say(200, "Cache flushed.\n", "text/plain")
        if HOW == "deaf":
            return self.say(503, {"error": {"message": "not yet"}})
        asked = json.loads(body)
        tokens = asked["max_tokens"]
        prompt, cached = 8, 4
        for i, count in enumerate((prompt, cached, tokens)):
            COUNTS[i] += count
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": tokens,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        if not asked.get("stream"):
            choice = {"index": 0, "text": " a" * tokens, "finish_reason": "length"}
            return self.say(200, {"choices": [choice], "usage": usage})
        LOADED.append(True)
        PROFILER.step()
        if HOW == "stuck":
            time.sleep(0.4)
        events = [
            {"choices": [{"index": 0, "text": " a", "finish_reason": "length" if i + 1 == tokens else None}]}
            for i in range(tokens)
        ]
        events.append({"choices": [], "usage": usage})
        lines = [json.dumps(event) for event in events] + ["[DONE]"]
        return self.say(200, "".join(f"data: {line}\n\n" for line in lines), "text/event-stream")

    def log_message(self, *_):
        pass


def meeting():
    """Where rank 0 waits for the others."""
    address = GIVEN.get("dist_init_addr") or f"{GIVEN['master_addr']}:{GIVEN['master_port']}"
    host, port = address.rsplit(":", 1)
    return host, int(port)


def die_if_asked():
    """Ends this rank if it is the one that has to."""
    if str(RANK) != GIVEN.get("dies_as"):
        return
    while "dies_when" in GIVEN and not os.path.exists(GIVEN["dies_when"]):
        time.sleep(0.02)
    print(GIVEN.get("last_words", "gone"), file=sys.stderr, flush=True)
    os._exit(3)


def watch(connection, pid=None):
    """Waits until the other end is gone, and the process `pid` too, and ends with it."""
    while connection.recv(64):
        pass
    while pid and os.path.exists(f"/proc/{pid}"):
        time.sleep(0.001)
    if not GIVEN.get("outlive"):
        os._exit(1)


def meet():
    """Lets all ranks find each other."""
    if RANK > 0:
        for _ in range(600):
            try:
                first = socket.create_connection(meeting(), timeout=5)
                break
            except OSError:
                time.sleep(0.05)
        else:
            sys.exit("torch.distributed.DistNetworkError: The client socket has failed to connect")
        first.settimeout(None)
        # The engine looks whether somebody listens there, and says nothing.
        first.sendall(f"{os.getpid()}\n".encode())
        first.recv(64)
        threading.Thread(target=watch, args=(first,), daemon=True).start()
        return
    listener = socket.create_server(meeting())
    others = []
    while len(others) + 1 < RANKS:
        connection, _ = listener.accept()
        if pid := connection.recv(64):
            others.append((connection, int(pid)))
    for connection, pid in others:
        connection.sendall(b"all here\n")
        # Those of another machine have no process here.
        threading.Thread(target=watch, args=(connection, pid), daemon=True).start()
    threading.Thread(target=lambda: [listener.accept() for _ in iter(int, 1)], daemon=True).start()


if HOW == "dies":
    sys.exit(GIVEN["last_words"])
RANK, RANKS = int(GIVEN.get("node_rank", 0)), int(GIVEN.get("nnodes", 1))
if RANKS > 1:
    meet()
    threading.Thread(target=die_if_asked, daemon=True).start()
if "headless" in GIVEN:
    threading.Event().wait()
PORT = int(GIVEN.get("server_port") or GIVEN["port"])
http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Server).serve_forever()
