"""MixLoRA for Python: models, traces, training and comparisons. Needs NumPy and this project's dynamic library, nothing else.

    swift build -c release --static-swift-stdlib --product CMixLoRA        # in the repository

    import mixlora                                                         # finds this file: PYTHONPATH=Notebooks
    model = mixlora.Model("path/to/model", adapters=["path/to/adapter"])
    batch = model.batch([("swap: r t ->", " t r")])                        # prompts and answers; or arrays, or a safetensors file
    trace = model.trace(batch, backward=True)
    trace["model.layers.0.mlp.output"]                                     # an array; every name: print(*trace, sep="\\n")
    for step in trace.steps("model.layers.0.mlp.*"): print(step.name, step.equation, step.array.shape)
    print(model.compare(torch_model, batch))                               # a PyTorch model on any device: what is wrong first?

The library is looked for in the environment's MIXLORA_LIBRARY, beside this file, and in .build/release of the repository.

Arrays are the library's own memory, which NumPy reads where it lies: nothing is copied, so they are read-only (`.copy()` is yours).
What an array reads lives as long as the array, or a view of it, does; trace and model may go before.

What is wrong raises mixlora.Error with a message that says what was found and what was expected (a name that a trace lacks is a KeyError
besides). Python's lock is free while the library
computes: other threads go on, and calls from several threads are allowed (on one model they wait for each other). Ctrl-C is heard
between calls: between the steps of a training run, say. Start processes by "spawn", not "fork": a fork lacks the library's threads.
"""

import collections, collections.abc, contextlib, ctypes, fnmatch, json, os, sys, tempfile, types
from pathlib import Path

import numpy as np

INTERFACE = 2  # of Sources/CMixLoRA/mixlora.h


class Error(Exception):
    """What the library, or this file, says of a call that cannot be carried out."""


class NoTensor(Error, KeyError):
    """A name that a trace has not."""

    __str__ = Exception.__str__  # KeyError's puts the message into quotes


@contextlib.contextmanager
def _expecting(what):
    """What Python says of a wrong argument or file, as an Error that says what was expected."""
    try:
        yield
    except Error:
        raise
    except (AttributeError, ImportError, LookupError, OSError, OverflowError, RecursionError, TypeError, ValueError) as problem:
        raise Error(f"found {problem}; expected {what}") from problem


# The library


class _Array(ctypes.Structure):
    """struct mixlora_array"""

    _fields_ = [("data", ctypes.c_void_p), ("shape", ctypes.POINTER(ctypes.c_int64)), ("axes", ctypes.c_int32), ("size", ctypes.c_int32)]


def _load():
    here, name = Path(__file__).resolve().parent, "libCMixLoRA" + (".dylib" if sys.platform == "darwin" else ".so")
    given = os.environ.get("MIXLORA_LIBRARY")
    places = [Path(given)] if given else [here / name, here.parent / ".build/release" / name]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise ImportError(f"found no library at {' or '.join(map(str, places))}; build it in the repository, "
                          "swift build -c release --static-swift-stdlib --product CMixLoRA, or say in MIXLORA_LIBRARY where it is")
    library = ctypes.CDLL(str(path))  # CDLL gives Python's lock away during a call
    handle, text, error, array = ctypes.c_uint64, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint64), ctypes.POINTER(_Array)
    for name, result, *arguments in [
            ("interface", ctypes.c_int32), ("text", text, handle), ("release", None, handle), ("open", handle, text, error),
            ("points", handle, handle, error), ("tokens", handle, handle, text, error), ("trace", handle, handle, text, error),
            ("tensor", handle, handle, text, array, error), ("train", handle, text, error), ("train_step", handle, handle, error),
            ("train_save", handle, handle, text, error), ("compare", handle, text, error), ("file", handle, text, array, error)]:
        function = getattr(library, "mixlora_" + name)
        function.restype, function.argtypes = result, arguments
    if (found := library.mixlora_interface()) != INTERFACE:
        raise ImportError(f"{path}: found version {found} of the C interface; expected {INTERFACE}: build it from the same commit")
    return library


_library = _load()


class _Handle:
    """Something that the library keeps for us, given back when nobody refers to it any more."""

    def __init__(self, number):
        self.number = number

    def __del__(self, release=_library.mixlora_release):
        release(self.number)

    @property
    def text(self):
        return _library.mixlora_text(self.number).decode()

    @property
    def json(self):
        return json.loads(self.text)


def _call(function, *arguments):
    """The handle that a function returns; its error as an exception."""
    error = ctypes.c_uint64(0)
    try:
        number = function(*(_bytes(a) if isinstance(a, str) else a for a in arguments), ctypes.byref(error))
    except ctypes.ArgumentError as problem:
        raise Error(f"found no text ({problem}); expected one") from None
    if number == 0:
        raise Error(_Handle(error.value).text)
    return _Handle(number)


def _bytes(text):
    """A text for C, which ends at its first zero."""
    if "\0" in text:
        raise Error(f"found a text with a zero at {text.index(chr(0))}; expected one without")
    return text.encode(errors="replace")


def _settings(**settings):
    """Settings as the library reads them; None is a setting that was not given."""
    def plain(value):
        if isinstance(value, (os.PathLike, np.generic)):
            return os.fspath(value) if isinstance(value, os.PathLike) else value.item()
        raise TypeError(f"found a setting of type {type(value).__name__}; expected numbers, texts and lists of them")

    try:
        return json.dumps({name: value for name, value in settings.items() if value is not None}, default=plain, allow_nan=False)
    except (RecursionError, TypeError, ValueError) as problem:
        raise Error(str(problem)) from None


class _Memory:
    """What NumPy keeps as the base of an array: it keeps the handle, which keeps the numbers."""

    def __init__(self, handle, array):
        self.handle = handle
        kind = {1: "u1", 4: "f4", 8: "f8"}[array.size]
        self.__array_interface__ = {
            "version": 3, "typestr": ("<" if sys.byteorder == "little" else ">") + kind, "data": (array.data, True),
            "shape": tuple(array.shape[:array.axes])}


def _array(function, *arguments):
    array = _Array()
    handle = _call(function, *arguments, ctypes.byref(array))
    return np.asarray(_Memory(handle, array))


def file(name):
    """The bytes of a file that lies in the library: `capture/torch`, `data/train.jsonl`, … (a wrong name's error lists them)."""
    return _array(_library.mixlora_file, name)


def demo(folder):
    """Writes the demo's base model and data into a folder; gives the paths of the model, the training data and the test data."""
    with _expecting("a folder that can be written"):
        folder = Path(folder)
        for name in ["base/config.json", "base/tokenizer.json", "base/model.safetensors", "data/train.jsonl", "data/test.jsonl"]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(file(name).tobytes())
    return folder / "base", folder / "data/train.jsonl", folder / "data/test.jsonl"


def helper(framework):
    """The capture helper of `mixlora capture-helper` as a module: "torch" or "numpy"."""
    module = types.ModuleType(f"mixlora_capture_{framework}")
    with _expecting(f"{framework} to be installed"):
        exec(compile(file(f"capture/{framework}").tobytes(), module.__name__ + ".py", "exec"), module.__dict__)
    return module


# Batches


def batch(samples):
    """A batch of token ids: of each sample (prompt, answer), both lists of ids. The answer counts; rows are padded behind their end."""
    samples = _pairs(samples)
    with _expecting("samples (prompt, answer), both lists of token ids"):
        width = max((len(prompt) + len(answer) for prompt, answer in samples), default=0)
        ids, mask = np.zeros((2, len(samples), width), np.int64)
        labels = np.full((len(samples), width), -100, np.int64)
        for row, (prompt, answer) in enumerate(samples):
            whole = _whole(f"sample {row}", [*prompt, *answer])
            ids[row, :len(whole)], mask[row, :len(whole)] = whole, 1
            labels[row, len(prompt):len(whole)] = whole[len(prompt):]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _pairs(samples):
    """Samples as a list of (prompt, answer)."""
    with _expecting("samples: a list of (prompt, answer)"):
        samples = list(samples)
    for n, sample in enumerate(samples):
        if isinstance(sample, (str, bytes)) or not hasattr(sample, "__len__") or len(sample) != 2:
            raise Error(f"sample {n}: found {sample!r}; expected (prompt, answer)")
    return samples


def _whole(name, values):
    """Values as an array of whole numbers of 64 bits."""
    try:
        array = np.asarray(values)
        if array.dtype.kind in "biu" or array.size == 0:
            return np.ascontiguousarray(array, dtype="<i8")
    except (RuntimeError, TypeError, ValueError):
        pass
    raise Error(f"{name}: found {type(values).__name__}, no array of whole numbers; expected one")


@contextlib.contextmanager
def _written(batch):
    """A batch as a file: safetensors, integers of 64 bits."""
    if isinstance(batch, (str, os.PathLike)):
        yield os.fspath(batch)
        return
    if not isinstance(batch, collections.abc.Mapping):
        raise Error(f"found a batch of type {type(batch).__name__}; expected a file, or arrays by name: input_ids, attention_mask, labels, adapter")
    header, parts, end = {}, [], 0
    for name, values in batch.items():
        array = _whole(name, values)
        header[name] = {"dtype": "I64", "shape": array.shape, "data_offsets": [end, end := end + array.nbytes]}
        parts.append(array.tobytes())
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with tempfile.TemporaryDirectory(prefix="mixlora-") as folder:
        path = Path(folder, "batch.safetensors")
        path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))
        yield str(path)


NUMBERS = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": "u2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1", "U8": "u1", "BOOL": "?"}


def load(path):
    """The arrays of a safetensors file by name, such as a trace, an adapter or a record; bfloat16 becomes float32, which has its values."""
    with _expecting(f"a safetensors file, {path}"):
        data = Path(path).read_bytes()
        begin, found = 8 + int.from_bytes(data[:8], "little"), {}
        for name, entry in json.loads(data[8:begin]).items():
            if name != "__metadata__":
                numbers = np.frombuffer(data[slice(*(begin + end for end in entry["data_offsets"]))], "<" + NUMBERS[entry["dtype"]])
                if entry["dtype"] == "BF16":
                    numbers = (numbers.astype("<u4") << 16).view("<f4")
                found[name] = numbers.reshape(entry["shape"]).copy()
        return found


# Models


Point = collections.namedtuple("Point", "name phase operation equation inputs shape")
Point.__doc__ = "A point of a run, as `mixlora trace --list` prints it: its phase is forward, backward or optimizer."
Step = collections.namedtuple("Step", "name phase operation equation inputs array", defaults=[None] * 5)
Step.__doc__ = "A tensor of a trace, the equation that forms it, and the names of what it is formed from."


class Model:
    """A model with its adapters. `path`: a Hugging Face folder or a GGUF file. Settings: precision ("float32" or "float64"), threads,
    evaluation and router_loss as `mixlora trace --help` has them, gradients=False to spare their memory where there is no adapter."""

    def __init__(self, path, adapters=(), **settings):
        with _expecting("a folder of an adapter, or a list of them"):
            adapters = [adapters] if isinstance(adapters, (str, os.PathLike)) else list(adapters)
        self._open(_call(_library.mixlora_open, _settings(model=path, adapters=adapters, **settings)))
        self._compared = {"model": os.fspath(path), "adapters": adapters, "router_loss": settings.get("router_loss")}

    def _open(self, handle):
        self._handle, self.about = handle, handle.json  # family, layers, channels, vocabulary, adapters, parameters, precision

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.about.items() if not isinstance(v, (dict, list)))})"

    @property
    def points(self):
        """Every point that a run passes, in its order."""
        return [Point(**point) for point in _call(_library.mixlora_points, self._handle.number).json]

    def tokens(self, text):
        """The ids of a text."""
        return _call(_library.mixlora_tokens, self._handle.number, text).json

    def batch(self, samples):
        """A batch of texts: (prompt, answer) each, of which the answer counts."""
        return batch([(self.tokens(prompt), self.tokens(answer)) for prompt, answer in _pairs(samples)])

    def trace(self, batch, backward=False, activations=True, steps=0, **settings):
        """Runs a batch: forward, backward if asked for, and `steps` of AdamW (`lr`, `weight_decay`), after which the model is as it was.
        `activations` may be a pattern of names. `batch`: arrays by name (input_ids, attention_mask, labels, adapter), or a file."""
        with _written(batch) as path:
            settings = _settings(batch=path, backward=backward, activations=activations, steps=steps, **settings)
            return Trace(_call(_library.mixlora_trace, self._handle.number, settings))

    def compare(self, candidate, batch, **settings):
        """Judges another program's numbers against ours in float64; see `mixlora compare`. The candidate is a file, arrays by the names
        of a trace, or a PyTorch model, which then runs where it is; what `record` takes (`forward`, `optimizer`, …) may then be given.
        Settings: precision, mode, rtol, atol, only, ignore, map, steps, lr, weight_decay, replay_routing, threads."""
        with _written(batch) as path, tempfile.TemporaryDirectory(prefix="mixlora-") as folder:
            name = None  # of a file, its path
            if isinstance(candidate, collections.abc.Mapping):
                name, arrays, candidate = "these arrays", candidate, f"{folder}/candidate.npz"
                with _expecting("arrays by the names of a trace"):
                    np.savez(candidate, **arrays)
            elif hasattr(candidate, "named_parameters"):
                recording = {name: settings.pop(name) for name in RECORDING if name in settings}
                name, model, candidate = f"this {type(candidate).__name__}", candidate, f"{folder}/candidate.safetensors"
                record(model, path, candidate, **recording)
            settings = _settings(**{**self._compared, "batch": path, "candidate": candidate, "name": name, **settings})
            return Report(_call(_library.mixlora_compare, settings))


class Trace(collections.abc.Mapping):
    """The tensors of a run by name, in the order of the run: forward, backward, what a step leaves."""

    def __init__(self, handle):
        self._handle, about = handle, handle.json
        self._points = {tensor["name"]: tensor for tensor in about["tensors"]}
        self.losses, self.first_non_finite = about["losses"], about["first_non_finite"]

    def __getitem__(self, name):
        try:
            return _array(_library.mixlora_tensor, self._handle.number, name)
        except Error as problem:  # it names some that are alike
            raise NoTensor(str(problem)) from None

    def __contains__(self, name):
        return name in self._points

    def __iter__(self):
        return iter(self._points)

    def __len__(self):
        return len(self._points)

    def __repr__(self):
        names = list(self)
        found = f"{len(names)} tensors" + (f", {names[0]!r} to {names[-1]!r}" if names else "")
        wrong = f", first_non_finite={self.first_non_finite!r}" if self.first_non_finite else ""
        return f"Trace({found}, losses={self.losses}{wrong})"

    def steps(self, pattern="*"):
        """Goes through the run tensor by tensor, those whose names match (`*` and `?`)."""
        with _expecting("a pattern of names"):
            names = fnmatch.filter(self, pattern)
        for name in names:
            yield Step(**self._points[name], array=self[name])


class Training(Model):
    """A training run, which is a model that learns. Settings: those of `mixlora train` with `_` for `-` (steps=60, rank=4, lr=3e-3,
    method="lora", …), precision and threads. Nothing is written before `save`."""

    def __init__(self, model, data, **settings):
        self._open(_call(_library.mixlora_train, _settings(model=model, data=data, **settings)))
        self._model, self._router_loss, self._made = os.fspath(model), settings.get("router_loss"), 0

    def step(self):
        """Makes the next step; gives its line of metrics: loss, aux_loss, grad_norm, expert_load by layer and expert, …"""
        line = _call(_library.mixlora_train_step, self._handle.number).json
        self._made = line["step"]
        return line

    def __iter__(self):
        """Makes the steps that are left."""
        while self._made < self.about["steps"]:
            yield self.step()

    def save(self, folder):
        """Writes the adapter (or model), its metrics and pictures, as `mixlora train` does."""
        with _expecting("a folder"):
            _call(_library.mixlora_train_save, self._handle.number, os.fspath(folder))

    def compare(self, candidate, batch, **settings):
        """As a model's, with what was learnt so far."""
        with tempfile.TemporaryDirectory(prefix="mixlora-") as folder:
            self.save(folder)
            is_full = self.about["settings"]["method"] == "full"
            model, adapters = (folder, []) if is_full else (self._model, [folder])
            self._compared = {"model": model, "adapters": adapters, "router_loss": self._router_loss}
            return super().compare(candidate, batch, **settings)


# Comparisons


class Report:
    """What a comparison found: `matches`, the report as `text` (what print shows) and `html`, each tensor's judgement in `tensors`, and in
    `summary` the `first` wrong tensor, its `operation` and the probable `causes`."""

    def __init__(self, handle):
        answer = handle.json
        self.matches, self.text, self.html = answer["matches"], answer["text"], answer["html"]
        *self.tensors, self.summary = answer["lines"]
        self.first, self.causes = self.summary["first"], self.summary["causes"]

    def __str__(self):
        return self.text

    def __repr__(self):
        return self.text.rstrip("\n")

    def save(self, path):
        """Writes the page."""
        with _expecting("a file that can be written"):
            Path(path).write_text(self.html)


def compare(candidate, reference, **settings):
    """Compares two files tensor by tensor."""
    return Report(_call(_library.mixlora_compare, _settings(candidate=candidate, reference=reference, **settings)))


RECORDING = ["forward", "backward", "optimizer", "passes", "parameters", "rename"]


def record(model, batch, path, forward=None, backward=True, optimizer=None, passes=1, parameters=None, rename=None):
    """Runs a PyTorch model where it is and writes what its modules formed as a candidate; gradients, modes and buffers are as before.

    forward(model, tensors) gives (logits, loss, aux_loss); by default the model is called as Hugging Face's are, and the loss is the mean
    cross-entropy of the labels that count. `optimizer` with `passes` makes that many of its steps, which train the model. `parameters`
    (by their names in the adapter's file) and `rename` are those of the capture helper (`helper("torch")`)."""
    with _expecting("PyTorch, a model of it with parameters, and a batch with input_ids"):
        import torch
        with _written(batch) as file:
            arrays = load(file)
        arrays.setdefault("attention_mask", np.ones_like(arrays["input_ids"]))
        weights = list((parameters or dict(model.named_parameters())).values())
        tensors = {name: torch.tensor(array, device=weights[0].device) for name, array in arrays.items()}
        modes = {module: module.training for module in model.modules()}
        gradients = [weight.grad for weight in weights]
        capture = helper("torch").Capture(model, arrays["attention_mask"], parameters, rename)
        times = range(passes if optimizer else 1)
    try:
        model.eval()
        for weight in weights:
            weight.grad = None
        learns = backward and "labels" in arrays
        for _ in times:
            with torch.set_grad_enabled(learns):
                formed = (forward or _forward)(model, tensors)
            with _expecting("(logits, loss, aux_loss) of forward, a loss where there are labels, and an optimizer of PyTorch"):
                logits, loss, aux = formed
                if learns:
                    if optimizer:
                        optimizer.zero_grad()
                    (loss if aux is None else loss + aux).backward()
            capture.step(loss, aux, logits)
            if optimizer:
                optimizer.step()
        with _expecting("a file that can be written"):
            capture.save(os.fspath(path), optimizer)
    finally:
        for module, mode in modes.items():
            module.training = mode
        for weight, gradient in zip(weights, gradients):
            weight.grad = gradient


def _forward(model, tensors):
    import torch
    found = model(input_ids=tensors["input_ids"], attention_mask=tensors["attention_mask"])
    logits = getattr(found, "logits", found)
    if "labels" not in tensors:
        return logits, None, None
    mask, labels = tensors["attention_mask"].bool(), tensors["labels"]
    counts = mask[:, 1:] & mask[:, :-1] & (labels[:, 1:] != -100)  # a label counts if it and the token before are real
    rows = logits[:, :-1][counts].to(torch.promote_types(logits.dtype, torch.float32))
    return logits, torch.nn.functional.cross_entropy(rows, labels[:, 1:][counts]), None
