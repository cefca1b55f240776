"""Counts a second time what makers of workloads have counted, with the Python package of `tokenizers`.

`conversations TOKENIZER DATA WANTED RULES=WORKLOAD …` takes conversations of ShareGPT as SGLang's
`bench_serving` does, by the rules of 2024 or by the present ones, and compares; `lengths TOKENIZER
WORKLOAD …` tokenises prompts again. Both print a line of JSON for each workload: how many requests there
should be, how many there are, and the first that differs.
"""

import json
import random
import sys
from itertools import islice

from tokenizers import Tokenizer

# Texts that are counted together.
TOGETHER = 512


def records(path):
    """The records that are whole, of a list that may be cut off."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    decoder = json.JSONDecoder()
    at = text.index("[") + 1
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        try:
            record, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            return
        yield record


def passes(rules, prompt, answer):
    """Whether lengths in tokens pass."""
    if rules == "2024":
        return prompt >= 4 and answer >= 4 and prompt <= 1024 and prompt + answer <= 2048
    return prompt >= 2 and answer >= 2


def counted(tokenizer, pairs):
    """Prompts with both lengths."""
    pairs = iter(pairs)
    while some := list(islice(pairs, TOGETHER)):
        lengths = [len(one.ids) for one in tokenizer.encode_batch([t for pair in some for t in pair])]
        for (prompt, _), inputs, outputs in zip(some, lengths[::2], lengths[1::2]):
            yield prompt, inputs, outputs


def told(expected, path):
    """Compares what should be there with what is."""
    with open(path, encoding="utf-8") as file:
        made = [json.loads(line) for line in file]
    made = [(one["text"], one["input_tokens"], one["output_tokens"]) for one in made]
    pairs = enumerate(zip(expected, made))
    first = next((i for i, (one, other) in pairs if tuple(one) != other), None)
    print(json.dumps({"expected": len(expected), "made": len(made), "differs": first}))


def conversations(tokenizer, data, wanted, *workloads):
    values = [[said["value"] for said in record["conversations"]] for record in records(data)]
    pairs = [said[:2] for said in values if len(said) >= 2]
    random.seed(42)
    random.shuffle(pairs)
    taken = {rules: [] for rules, _ in workloads}
    for one in counted(tokenizer, pairs):
        for rules, kept in taken.items():
            if len(kept) < wanted and passes(rules, *one[1:]):
                kept.append(one)
        if all(len(kept) == wanted for kept in taken.values()):
            break
    for rules, path in workloads:
        told(taken[rules], path)


def lengths(tokenizer, path):
    with open(path, encoding="utf-8") as file:
        made = [json.loads(line) for line in file]
    again = tokenizer.encode_batch([one["text"] for one in made])
    expected = [(one["text"], len(ids), one["output_tokens"]) for one, ids in zip(made, again)]
    told(expected, path)


def main():
    what, tokenizer, *rest = sys.argv[1:]
    tokenizer = Tokenizer.from_file(tokenizer)
    if what == "lengths":
        for path in rest:
            lengths(tokenizer, path)
    else:
        data, wanted, *workloads = rest
        conversations(tokenizer, data, int(wanted), *(one.split("=", 1) for one in workloads))


if __name__ == "__main__":
    main()
