"""Answers as SGLang or vLLM do, as far as a launch asks: what they say was written down from real ones.

    python3 replay.py HOW [flags of the server]

HOW is `serves`, `deaf` (healthy, and never makes a token), `stuck` (slow, and tells no metrics any more once it has
load) or `dies` (with the last line of `--last-words`).
Whatever flags say is what it tells that it applied, except those that `--ignores NAME=VALUE` names.
"""

import http.server
import json
import sys
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
METRICS = """# HELP sglang:prompt_tokens_total Number of prefill tokens processed.
# TYPE sglang:prompt_tokens_total counter
sglang:prompt_tokens_total{model_name="replayed"} %d.0
sglang:cached_tokens_total{cache_source="device",model_name="replayed"} %d.0
sglang:generation_tokens_total{model_name="replayed"} %d.0
"""
COUNTS = [0, 0, 0]
LOADED = []


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
        answers = {
            "/health": "",
            "/v1/models": {"data": [{"id": "replayed"}]},
            "/server_info": APPLIED,
            "/version": {"version": "0.32.0"},
            "/metrics": METRICS % tuple(COUNTS),
        }
        path = self.path.split("?")[0]
        if HOW == "stuck" and LOADED and path == "/metrics":
            time.sleep(600)
        self.say(200 if path in answers else 404, answers.get(path, "no"))

    def do_POST(self):
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length)
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


if HOW == "dies":
    sys.exit(GIVEN["last_words"])
http.server.ThreadingHTTPServer(("127.0.0.1", int(GIVEN["port"])), Server).serve_forever()
