"""Holds the program against jinja2 on a folder of chat templates.

    python llama_cpp.py FOLDER PROGRAM [TOKENIZER]

FOLDER holds `*.jinja`, such as vendor/llama.cpp/models/templates of the source distribution llama-cpp-python 0.3.36; PROGRAM is
`mixlora`; TOKENIZER a folder with a tokenizer.json (default: ../tokenizers/qwen2), which gets each template. Every conversation is
laid out by `mixlora tokenize --chat --render`, with and without a generation prompt, and by jinja2 3.1.6 as transformers 4.46.3 sets
its sandbox up. Texts must be the same bytes; where jinja2 raises an error, the program must end with exit code 3.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

from transformers.utils.chat_template_utils import _compile_jinja_template


def say(role, content, **more):
    return {"role": role, "content": content, **more}


CALL = {"type": "function", "id": "abcdefghi", "function": {"name": "get", "arguments": {"a": 1, "b": [True, None, 1.5, "ü"]}}}
CONVERSATIONS = {
    "one turn": [say("user", "Hi there")],
    "system": [say("system", "Be brief."), say("user", "Hi")],
    "turns": [say("user", "Hi"), say("assistant", "Hello!"), say("user", "How?"), say("assistant", "Well.\n")],
    "thought": [say("system", " You are X.\n"), say("user", "Hi"), say("assistant", "<think>\nhm\n</think>\n\nHello!"), say("user", "  How? ")],
    "unicode": [say("user", "Größe 你好 🎉 \u200d e\u0301 İ"), say("assistant", "naïve ΟΔΟΣ")],
    "empty": [say("user", ""), say("assistant", ""), say("user", "x")],
    "assistant first": [say("assistant", "first"), say("assistant", "second")],
    "unknown role": [say("narrator", "x")],
    "two users": [say("user", "a"), say("user", "b")],
    "parts": [say("user", [{"type": "text", "text": "part one"}, {"type": "text", "text": "two"}])],
    "tool": [say("user", "w?"), say("assistant", "", tool_calls=[CALL]), say("tool", '{"t": 3}', tool_call_id="abcdefghi", name="get"), say("assistant", "3")],
    "no words": [say("user", None)],
    "further keys": [say("user", "q", name="bob"), say("assistant", "a", reasoning_content="because", thinking="hmm"), say("user", "q2")],
}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def reference(template, messages, prompt):
    try:
        compiled = _compile_jinja_template(template)
        return compiled.render(messages=messages, tools=None, documents=None, add_generation_prompt=prompt, **TOKENS)
    except Exception:
        return None


def main(folder, program, tokenizer):
    templates = sorted(pathlib.Path(folder).glob("*.jinja"))
    right = errors = 0
    wrong = []
    for path in templates:
        with open(path, newline="", encoding="utf-8") as file:
            template = file.read()
        with tempfile.TemporaryDirectory() as model:
            shutil.copy(pathlib.Path(tokenizer) / "tokenizer.json", model)
            settings = {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": {}, "chat_template": template, **TOKENS}
            pathlib.Path(model, "tokenizer_config.json").write_text(json.dumps(settings))
            for prompt in (False, True):
                expected = {name: reference(template, messages, prompt) for name, messages in CONVERSATIONS.items()}
                good = [name for name in CONVERSATIONS if expected[name] is not None]
                for names in ([good] if good else []) + [[name] for name in CONVERSATIONS if name not in good]:
                    command = [program, "tokenize", "--model", model, "--chat", "--render"] + ["--generation-prompt"] * prompt
                    result = subprocess.run(command, input=json.dumps([CONVERSATIONS[n] for n in names]).encode(), capture_output=True)
                    if names is not good:
                        ok = [result.returncode == 3]
                        errors += ok[0]
                    elif result.returncode == 0:
                        ok = [text == expected[name] for name, text in zip(names, json.loads(result.stdout))]
                    else:
                        ok = [False] * len(names)
                    right += sum(ok)
                    wrong += [(path.name, name, prompt, result.stderr.decode()[-300:]) for name, same in zip(names, ok) if not same]
    for line in wrong:
        print(*line)
    print(f"{len(templates)} templates: {right} right ({errors} of them errors), {len(wrong)} wrong")
    return 1 if wrong or not templates else 0


if __name__ == "__main__":
    default = pathlib.Path(__file__).parent.parent / "tokenizers" / "qwen2"
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else default))
