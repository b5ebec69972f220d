#!/usr/bin/env python3
"""What PEFT, MoE-PEFT and torch make of the files that `mixlora` writes from the cases in this folder and in ../peers.

usage: roundtrip.py MIXLORA [--data FILE --model FOLDER]
  MIXLORA  the built program
Prints a line a check with its largest relative error and exits 1 if one is over its limit. Pins as in make.py, and moe-peft 2.0.2 with
MOE_PEFT_EXECUTOR_TYPE=CPU. With --model and --data a mixture is trained on them for a step, and MoE-PEFT opens the run as it is.

  peft     `convert --to peft` of every case: PEFT loads the folder, float64 logits against those of the case
  trained  `convert --to peft` is what PEFT saves again, tensor for tensor
  merged   `convert --merge`: the tensors against merge_and_unload, and the logits of the merged model
  pickle   `convert --to moe-peft`: torch.load(weights_only=True) gives the tensors bit for bit
  moe-peft its load_adapter opens the folder, float32 logits against those of the case
"""
import argparse, json, os, subprocess, sys, tempfile, warnings
from pathlib import Path
os.environ["MOE_PEFT_EXECUTOR_TYPE"] = "CPU"
warnings.simplefilter("ignore")
import torch                                                      # noqa: E402
from safetensors.torch import load_file                           # noqa: E402
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import make                                                       # noqa: E402
from make import peft, programs, base, doubled, folder            # noqa: E402

LIMITS = dict(peft=1e-12, trained=0.0, merged=2e-7, logits=1e-5, pickle=0.0, moe=1e-4)
bad = []


def off(found, wanted): return ((found.double() - wanted.double()).norm() / wanted.double().norm().clamp(min=1e-12)).item()


def say(kind, what, error):
    fine = error <= LIMITS[kind]
    print(f"{kind:8} {what:24} {error:.1e}" + ("" if fine else f"  OVER {LIMITS[kind]:.0e}"))
    if not fine: bad.append(what)


def logits(model, batch):
    mask = programs.real(batch)
    with programs.TrulyDouble(), torch.no_grad():
        return model.to(torch.float64).eval()(input_ids=batch["input_ids"], attention_mask=mask.long()).logits * mask[..., None]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mixlora")
    parser.add_argument("--model")
    parser.add_argument("--data")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = lambda *a: subprocess.run([options.mixlora, *map(str, a)], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        for case in [c for c in make.CASES if not c.endswith("-new")]:
            model = make.CASES[case][0]
            batch, wanted = load_file(HERE / case / "batch.safetensors"), load_file(HERE / case / "expected64.safetensors")["logits"]
            run("convert", HERE / case, "--to", "peft", "--out", place / case)
            loaded = lambda: doubled(lambda: peft.PeftModel.from_pretrained(base(model), place / case, autocast_adapter_dtype=False))
            say("peft", case, off(logits(loaded(), batch), wanted))
            again = loaded()
            again.save_pretrained(place / (case + "-again"), save_embedding_layers=False)
            mine, theirs = load_file(place / case / "adapter_model.safetensors"), load_file(place / (case + "-again") / "adapter_model.safetensors")
            say("trained", case, float(set(mine) != set(theirs)) or max(off(mine[k], theirs[k]) for k in theirs))
            run("convert", "--merge", "--model", folder(model), HERE / case, "--out", place / (case + "-merged"))
            merged = loaded().merge_and_unload().state_dict()
            written = load_file(place / (case + "-merged") / "model.safetensors")
            say("merged", case, max(off(written[k], merged[k]) for k in written))
            c = json.loads((place / (case + "-merged") / "config.json").read_text())
            say("logits", case, off(logits(programs.hugging_face_model(place / (case + "-merged"), c), batch), wanted))
        peers = HERE.parent / "peers"
        index = {c["name"]: c for c in json.loads((peers / "cases.json").read_text())}
        for case in ["llama-topk", "mistral-topk", "qwen2-dynamic", "gemma2-topk", "lora-llama", "lora-qwen2-rslora"]:
            given, out = peers / index[case]["adapter"], place / case
            run("convert", given, "--to", "moe-peft", "--out", out)
            tensors = torch.load(out / "adapter_model.bin", weights_only=True)
            source = given / "adapter_model.safetensors"
            before = load_file(source) if source.exists() else torch.load(given / "adapter_model.bin", weights_only=True)
            same = list(tensors) == list(tensors) and set(tensors) == set(before) and all(torch.equal(tensors[k], before[k].detach()) for k in before)
            say("pickle", case, 0.0 if same and all(type(v) is torch.Tensor for v in tensors.values()) else 1.0)
            say("moe", case, moe_peft_logits(peers / index[case]["model"], out, load_file(peers / index[case]["batch"]), load_file(peers / index[case]["float64"])["logits"]))
        if options.model:
            run("train", "--model", options.model, "--data", options.data, "--out", place / "run", "--steps", 1, "--batch", 1, "--rank", 2, "--experts", 2)
            open_in_moe_peft(options.model, place / "run")
            print("moe-peft opens a run as train leaves it")
    sys.exit(1 if bad else 0)


def open_in_moe_peft(model, adapter):
    import moe_peft
    opened = moe_peft.LLMModel.from_pretrained(str(model), device="cpu", load_dtype=torch.float32, attn_impl="eager")
    return opened, opened.load_adapter(str(adapter))


def moe_peft_logits(model, adapter, batch, wanted):
    from moe_peft.common import LLMBatchConfig, LLMModelInput
    config = json.loads((adapter / "adapter_config.json").read_text())
    for part in [config, config.get("expert_lora", {})]:
        if "lora_dropout" in part: part["lora_dropout"] = 1e-12     # its dropout is on whatever it does
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    opened, name = open_in_moe_peft(model, adapter)
    mask = programs.real(batch)
    rows = len(batch["input_ids"])
    output = opened.forward(LLMModelInput(
        batch_configs_=[LLMBatchConfig(name, 0, rows)], batch_tokens_=batch["input_ids"].tolist(),
        batch_labels_=batch["input_ids"].tolist(), batch_masks_=mask.long().tolist()))[0]
    return off(output.logits.detach().reshape(wanted.shape) * mask[..., None], wanted)


if __name__ == "__main__": main()
