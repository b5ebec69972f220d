#!/usr/bin/env python3
"""Tests of mixlora.py over the built library; NumPy is all they need. What needs PyTorch and transformers is skipped where these are not.

    python3 Notebooks/mixlora_test.py
"""

import gc, json, os, subprocess, sys, tempfile, threading, time, unittest
from pathlib import Path

import numpy as np

import lessons, mixlora, mixlora_notebooks

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "Fixtures/golden/topk"
BATCH = GOLDEN / "batch.safetensors"
PEERS = ROOT / "Fixtures/peers"


def golden(**settings):
    return mixlora.Model(GOLDEN / "model", GOLDEN / "adapter", **{"precision": "float64", "threads": 1, **settings})


class Traces(unittest.TestCase):
    def test_the_numbers_are_pytorchs(self):
        expected = mixlora.load(GOLDEN / "expected64.safetensors")
        trace = golden().trace(BATCH, backward=True, activations=False, steps=3, lr=0.01)
        self.assertEqual(set(expected), set(trace))
        self.assertGreater(len(expected), 100)
        for name, values in expected.items():
            found = trace[name]
            self.assertEqual(found.shape, values.shape, name)
            limit = 1e-9 if name.startswith("after.") or name == "loss_curve" else 1e-12
            floor = 1e-3 * np.median([np.linalg.norm(v) for k, v in expected.items() if k.split(".")[0] == name.split(".")[0]])
            self.assertTrue(np.linalg.norm(found - values) <= limit * max(np.linalg.norm(values), floor), name)

    def test_a_walk_meets_every_tensor_with_its_equation_and_inputs(self):
        model = golden()
        trace = model.trace(BATCH, backward=True)
        steps = list(trace.steps())
        self.assertEqual([step.name for step in steps], list(trace))
        self.assertTrue(all(step.equation and step.inputs and step.array.size for step in steps))
        phases = [step.phase for step in steps]
        self.assertEqual(sorted(set(phases)), ["backward", "forward"])
        self.assertEqual(phases, sorted(phases, reverse=True))  # forward, then backward
        met = {step.name for step in steps}
        points = {point.name for point in model.points if point.phase != "optimizer"}
        self.assertEqual(points - met, set())
        gate = next(trace.steps("model.layers.0.mlp.moe_gate.probabilities.output"))
        np.testing.assert_allclose(gate.array.sum(-1)[0], 1)
        logits = trace[gate.inputs[0]]
        np.testing.assert_allclose(gate.array[0], (e := np.exp(logits[0])) / e.sum(-1, keepdims=True), rtol=1e-12)

    def test_the_model_is_as_it_was(self):
        model = golden()
        first, _, again = model.trace(BATCH, backward=True), model.trace(BATCH, steps=3, lr=1), model.trace(BATCH, backward=True)
        for name in first:
            np.testing.assert_array_equal(first[name], again[name], name)

    def test_arrays_by_name_are_the_file(self):
        arrays = mixlora.load(BATCH)
        model = golden()
        from_file, from_arrays = model.trace(BATCH), model.trace({k: v.tolist() for k, v in arrays.items()})
        np.testing.assert_array_equal(from_file["logits"], from_arrays["logits"])


class Memory(unittest.TestCase):
    def long_trace(self):
        """A trace with more than a million logits."""
        with tempfile.TemporaryDirectory() as folder:
            model = mixlora.Model(mixlora.demo(folder)[0], gradients=False)
        ids = np.arange(16 * 192).reshape(16, 192) % model.about["vocabulary"]
        return model.trace({"input_ids": ids}, activations=False)

    def test_a_million_numbers_cross_in_under_a_millisecond(self):
        trace, times = self.long_trace(), []
        for _ in range(50):
            start = time.perf_counter()
            array = trace["logits"]
            last = array[-1, -1, -1]
            times.append(time.perf_counter() - start)
        self.assertGreater(array.size, 1_000_000)
        self.assertTrue(np.isfinite(last))
        self.assertLess(np.median(times), 1e-3)
        print(f"{array.size} numbers: {1e6 * np.median(times):.0f} µs (median of {len(times)}); a copy takes "
              f"{1e6 * min(self.seconds(array.copy) for _ in range(5)):.0f} µs")

    def seconds(self, work):
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    def test_nothing_is_copied_and_nobody_writes(self):
        trace = golden().trace(BATCH)
        first, second = trace["logits"], trace["logits"]
        self.assertEqual(first.__array_interface__["data"], second.__array_interface__["data"])
        self.assertFalse(first.flags.owndata or first.flags.writeable)
        with self.assertRaises(ValueError):
            first[0] = 1

    def test_a_view_keeps_the_numbers_when_model_and_trace_are_gone(self):
        trace = golden().trace(BATCH)
        expected = trace["logits"].copy()
        view = trace["logits"][1:, 2:]
        del trace
        gc.collect()
        others = [golden().trace(BATCH, backward=True) for _ in range(3)]  # would take the place of what was freed
        np.testing.assert_array_equal(view, expected[1:, 2:])
        self.assertTrue(others)

    def test_memory_goes_with_the_arrays(self):
        with open("/proc/self/statm") if sys.platform == "linux" else self.skipTest("reads /proc") as statm:
            def megabytes():
                statm.seek(0)
                return int(statm.read().split()[1]) * 4096 / 1e6

            with tempfile.TemporaryDirectory() as folder:
                model = mixlora.Model(mixlora.demo(folder)[0], gradients=False)
            batch = {"input_ids": np.zeros((4, 64), np.int64)}
            sizes = []
            for _ in range(25):
                sizes.append(sum(array.nbytes for array in model.trace(batch).values()) / 1e6)
                if len(sizes) == 5:
                    before = megabytes()
            self.assertGreater(sum(sizes[5:]), 100)
            self.assertLess(megabytes() - before, 0.2 * sum(sizes[5:]))


class Errors(unittest.TestCase):
    def says(self, text, work):
        with self.assertRaises(mixlora.Error) as caught:
            work()
        self.assertIn(text, str(caught.exception))

    def test_messages_are_the_librarys(self):
        model = golden()
        self.says("/nowhere: found nothing of this name", lambda: mixlora.Model("/nowhere"))
        self.says('key "rank": found 3; expected no such setting; there are adapters, evaluation, gradients, model, precision, router_loss, '
                  "threads", lambda: golden(rank=3))
        self.says("there are accumulate, act_fn, adapter, alpha, batch, clip, data,", lambda: mixlora.Training(GOLDEN / "model", "/nowhere", ranks=3))
        self.says("expected a whole number in 1...1024", lambda: golden(threads=0))
        self.says("/nowhere", lambda: model.trace("/nowhere"))
        self.says("a token in 0..<61", lambda: model.trace({"input_ids": [[61]]}))
        self.says("(B, T) with at least one row", lambda: model.trace({"input_ids": np.zeros((0, 3), int)}))
        self.says("expected (B, T)", lambda: model.trace({"input_ids": [1, 2]}))
        self.says("that nothing reads", lambda: model.trace({"input_ids": [[1]], "ids": [[1]]}))
        self.says("backward needs labels", lambda: model.trace({"input_ids": [[1, 2]]}, backward=True))
        self.says("'nothing.*', which no path matches", lambda: model.trace(BATCH, activations="nothing.*"))
        self.says("rank is 0, expected 1 to 1000000", lambda: mixlora.Training(GOLDEN / "model", "/nowhere", rank=0))
        self.says("expected one of capture/torch", lambda: mixlora.file("x"))
        self.says("/nowhere", lambda: model.compare("/nowhere", BATCH))
        self.says("expected a safetensors file", lambda: mixlora.load(__file__))
        trace = model.trace(BATCH)
        for kind in [KeyError, mixlora.Error]:
            with self.assertRaises(kind) as caught:
                trace["logit"]
            self.assertRegex(str(caught.exception), "^found no tensor 'logit' among .* such as logits")
        self.assertEqual((trace.get("logit", 3), "logit" in trace, "logits" in trace), (3, False, True))

    def test_messages_of_this_file(self):
        model = golden()
        self.says("no array of whole numbers", lambda: model.trace({"input_ids": [[1.5]]}))
        self.says("no array of whole numbers", lambda: model.trace({"input_ids": [[1], [1, 2]]}))
        self.says("expected a file, or arrays by name", lambda: model.trace(7))
        self.says("setting of type object", lambda: golden(threads=object()))
        self.says("with a zero at 1", lambda: model.tokens("a\0b"))
        self.says("not JSON compliant", lambda: model.trace(BATCH, lr=float("nan")))
        self.says("sample 0: found 'x'; expected (prompt, answer)", lambda: model.batch(["x"]))
        self.says("sample 1: found 'ab'; expected (prompt, answer)", lambda: mixlora.batch([([1], [2]), "ab"]))
        self.says("sample 0: found list, no array of whole numbers", lambda: mixlora.batch([([1], [2.5])]))
        self.says("nope", lambda: mixlora.load("nope"))

    def test_wrong_arguments_of_every_function_raise_nothing_else(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(os.chdir, os.getcwd())  # "nope" is a fine name for what is written
        path, data, _ = mixlora.demo(folder.name)
        model, run = mixlora.Model(path, threads=1), mixlora.Training(path, data, rank=1, experts=2, threads=1)
        good = mixlora.batch([([5], [6, 7])])
        trace, report = model.trace(good, backward=True), mixlora.compare(BATCH, BATCH)
        calls = {
            "file": [mixlora.file], "demo": [mixlora.demo], "helper": [mixlora.helper], "load": [mixlora.load],
            "batch": [mixlora.batch, lambda x: mixlora.batch([(x, [1])]), lambda x: mixlora.batch([([1], x)])],
            "compare": [lambda x: mixlora.compare(x, BATCH), lambda x: mixlora.compare(BATCH, x), lambda x: mixlora.compare(BATCH, BATCH, mode=x)],
            "record": [lambda x: mixlora.record(x, good, "a"), lambda x: mixlora.record(object(), x, "a")],
            "Model": [mixlora.Model, lambda x: mixlora.Model(path, x), lambda x: mixlora.Model(path, threads=x), lambda x: mixlora.Model(path, precision=x)],
            "Model.tokens": [model.tokens], "Model.batch": [model.batch, lambda x: model.batch([(x, x)])],
            "Model.trace": [model.trace, lambda x: model.trace({"input_ids": x}), lambda x: model.trace(good, backward=x),
                            lambda x: model.trace(good, activations=x), lambda x: model.trace(good, steps=x), lambda x: model.trace(good, lr=x)],
            "Model.compare": [lambda x: model.compare(x, good), lambda x: model.compare({"logits": x}, good), lambda x: model.compare("nope", x)],
            "Trace.steps": [lambda x: list(trace.steps(x)), lambda x: trace[x]],
            "Training": [lambda x: mixlora.Training(x, data), lambda x: mixlora.Training(path, x), lambda x: mixlora.Training(path, data, rank=x),
                         lambda x: mixlora.Training(path, data, targets=x)],
            "Training.step": [lambda x: mixlora.Model.trace(run, x)], "Training.save": [run.save], "Training.compare": [lambda x: run.compare(x, good)],
            "Report.save": [report.save],
        }
        public = {name: value for name, value in vars(mixlora).items() if getattr(value, "__module__", "") == "mixlora" and name[0] != "_"}
        classes = [mixlora.Model, mixlora.Trace, mixlora.Training, mixlora.Report]
        methods = {f"{kind.__name__}.{name}" for kind in classes for name, value in vars(kind).items() if callable(value) and name[0] != "_"}
        self.assertEqual(set(calls), methods | set(public) - {"Error", "NoTensor", "Point", "Step", "Trace", "Report"})
        wrong = [None, 7, 2.5, "nope", b"nope", object(), [], ["x"], [7], [("a",)], [("a", 1)], {}, {"a": 1}, {1: 2}]
        for name, ways in calls.items():
            for n, call in enumerate(ways):
                refused = 0
                for value in wrong:
                    with self.subTest(f"{name}, {n}", value=value), tempfile.TemporaryDirectory() as here:
                        os.chdir(here)
                        try:
                            call(value)
                        except mixlora.Error as error:
                            refused += 1
                            self.assertTrue(str(error))
                        os.chdir(folder.name)
                self.assertGreater(refused, 0, f"{name}, {n}: nothing was refused")

    def test_a_trace_says_what_it_is(self):
        trace = golden().trace(BATCH, backward=True)
        names = list(trace)
        self.assertEqual(repr(trace), f"Trace({len(names)} tensors, {names[0]!r} to {names[-1]!r}, losses={trace.losses})")
        self.assertGreater(trace.losses["loss"][0], 0)

    def test_without_a_library_the_import_says_how_to_build_it(self):
        found = subprocess.run([sys.executable, "-c", "import mixlora"], cwd=ROOT / "Notebooks", capture_output=True, text=True,
                               env={"MIXLORA_LIBRARY": "/nowhere/libCMixLoRA.so"})
        self.assertNotEqual(found.returncode, 0)
        self.assertIn("found no library at /nowhere/libCMixLoRA.so; build it", found.stderr)


class Work(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.model, cls.data, cls.test = mixlora.demo(cls.folder.name)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def training(self, **settings):
        return mixlora.Training(self.model, self.data, **{"steps": 3, "rank": 2, "experts": 4, "batch": 4, "lr": 1e-3, "threads": 1, **settings})

    def test_a_run_trains_and_its_adapter_is_the_model_that_was_traced(self):
        run = self.training(dropout=0)
        batch = run.batch([("swap: r t ->", " t r"), ("reverse: k d a ->", " a d k")])
        before = run.trace(batch)["logits"]
        lines = list(run)
        self.assertEqual([line["step"] for line in lines], [1, 2, 3])
        self.assertEqual(np.shape(lines[0]["expert_load"]), (4, 4))
        np.testing.assert_allclose(np.sum(lines[0]["expert_load"], -1), 1)
        self.assertEqual([line["loss"] for line in lines], [line["loss"] for line in self.training(dropout=0)])
        after = run.trace(batch)["logits"]
        self.assertTrue(np.abs(after - before).max() > 0)
        run.save(f"{self.folder.name}/run")
        np.testing.assert_array_equal(mixlora.Model(self.model, f"{self.folder.name}/run", threads=1).trace(batch)["logits"], after)
        report = run.compare({"logits": after}, batch)
        self.assertTrue(report.matches, report)
        self.assertFalse(run.compare({"logits": before}, batch).matches)

    def test_python_goes_on_while_the_library_computes(self):
        run, ticks, span = self.training(batch=32, steps=1), [], []

        def work():
            span.append(time.perf_counter())
            run.step()
            span.append(time.perf_counter())

        thread = threading.Thread(target=work)
        thread.start()
        while thread.is_alive():
            ticks.append(time.perf_counter())
            time.sleep(0.001)
        begin, end = span
        self.assertTrue(any(begin + 0.3 * (end - begin) < tick < begin + 0.7 * (end - begin) for tick in ticks))

    def test_a_comparison_finds_the_tensor_that_was_changed(self):
        model = golden()
        trace = dict(model.trace(BATCH, backward=True))
        self.assertTrue(model.compare(trace, BATCH).matches)
        name = "model.layers.1.mlp.moe_gate.output"
        report = model.compare({**trace, name: 1.01 * trace[name]}, BATCH)
        self.assertFalse(report.matches)
        self.assertEqual(report.first, name)
        self.assertIn("these arrays", report.text)
        self.assertIn("<!doctype html>", report.html)
        self.assertIn(name, [tensor["tensor"] for tensor in report.tensors if tensor["verdict"] == "mismatch"])


class Notebooks(unittest.TestCase):
    def notebook(self, *lines):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "small.md")
            path.write_text("\n".join(lines))
            found = mixlora_notebooks.Notebook(path)
            found.run()
            return json.loads(found.text())

    def test_outputs_are_what_jupyter_would_show(self):
        text, first, second = self.notebook("# Small", "```python", "a = 2", "print(a)", "a + 1", "```", "```python", "a = 3", "```")["cells"]
        self.assertEqual((text["cell_type"], text["source"]), ("markdown", ["# Small"]))
        self.assertEqual((first["execution_count"], first["source"]), (1, ["a = 2\n", "print(a)\n", "a + 1"]))
        self.assertEqual(first["outputs"][0]["text"], ["2\n", "3\n"])
        self.assertEqual((second["execution_count"], second["outputs"]), (2, []))

    def test_mistakes_are_errors_with_their_place(self):
        for lines, expected in [
                (["# no cell"], "at least one"), (["```python", "1 / 0", "```"], "small.md:1: ZeroDivisionError"),
                (["```python", "print(float('nan'))", "```"], "not finite"), (["```python", "a = 1", "```"], "no cell prints anything"),
                (["```swift", "let a = 1", "```"], "no such cell"), (["```python", "1"], "a fence without an end")]:
            with self.assertRaises(lessons.Wrong) as caught:
                self.notebook(*lines)
            self.assertIn(expected, str(caught.exception))


class PyTorch(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        try:
            import torch, transformers
        except ImportError as error:
            raise unittest.SkipTest(f"{error.name} is not installed: no PyTorch model was compared")
        transformers.utils.logging.set_verbosity_error()
        cls.torch, cls.path = torch, PEERS / "models/qwen2"
        cls.batch = PEERS / "cases/qwen2-base/batch.safetensors"

    def theirs(self, device="cpu", dtype="float32"):
        from transformers import AutoModelForCausalLM
        return AutoModelForCausalLM.from_pretrained(self.path, torch_dtype=getattr(self.torch, dtype), attn_implementation="eager").to(device)

    def test_one_call_compares_forward_and_backward(self):
        model, theirs = mixlora.Model(self.path, threads=1), self.theirs()
        theirs.train()
        kept = next(theirs.parameters())
        kept.grad = self.torch.ones_like(kept)
        report = model.compare(theirs, self.batch)
        self.assertTrue(report.matches, report)
        self.assertTrue(any(t["tensor"].startswith("grad.model.layers") and t["verdict"] == "ok" for t in report.tensors))
        self.assertIn("this Qwen2ForCausalLM", report.text)
        self.assertTrue(theirs.training and bool((kept.grad == 1).all()), "the model is as it was")
        self.assertTrue(all(p.grad is None for p in theirs.parameters() if p is not kept))

    def test_a_mistake_is_found_where_it_is(self):
        theirs = self.theirs()
        theirs.model.layers[1].input_layernorm.variance_epsilon = 1e-2
        report = mixlora.Model(self.path, threads=1).compare(theirs, self.batch)
        self.assertEqual(report.first, "model.layers.1.input_layernorm.output")

    def test_optimizer_steps_bfloat16_and_a_forward_of_ones_own(self):
        model, theirs = mixlora.Model(self.path, threads=1), self.theirs()
        optimizer = self.torch.optim.AdamW(theirs.parameters(), lr=1e-3, weight_decay=0.01)
        report = model.compare(theirs, self.batch, optimizer=optimizer, passes=2)
        self.assertTrue(report.matches, report)
        self.assertTrue(any(t["tensor"].startswith("after.") for t in report.tensors))
        self.assertTrue(model.compare(self.theirs(dtype="bfloat16"), self.batch).matches)

        def forward(model, tensors):
            return model(tensors["input_ids"]).logits * 2, None, None
        self.assertEqual(model.compare(self.theirs(), self.batch, forward=forward, backward=False, only=["logits"]).first, "logits")

    def test_on_a_gpu(self):
        if not self.torch.cuda.is_available():
            self.skipTest("there is no GPU")
        report = mixlora.Model(self.path, threads=1).compare(self.theirs("cuda"), self.batch)
        self.assertTrue(report.matches, report)


if __name__ == "__main__":
    unittest.main(verbosity=2)  # what was skipped is said
