#ifndef MIXLORA_H
#define MIXLORA_H

// MixLoRA for programs in C, and for what speaks C: libCMixLoRA.so (.dylib). Notebooks/mixlora.py stands on it.
//
// Handles. What is opened or formed is known by a number that is never given twice. mixlora_release gives it back; a number that was
// given back, or never was one, is an error to every other function and nothing to mixlora_release. So nothing is freed twice, and a
// mistake in the caller ends in a message and not in a crash. 0 is no handle.
//
// Errors. A function that can fail returns 0 and, unless `error` is NULL, stores the handle of a text there that says what was found and
// what was expected. `error` is not written where nothing failed. No input ends the process: NULL, a wrong number, settings with an
// unknown key and broken files are all errors. (Memory that runs out does end it.)
//
// Settings are one JSON object in UTF-8. Keys that nobody reads are errors, which list those that there are; null is as good as no key.
//
// Threads. Any thread may call anything. Calls on one model wait for each other, others run side by side; each model has its own threads
// (setting `threads`). mixlora_release never waits for a computation.

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef uint64_t mixlora_handle;

/// Numbers in memory of this library, row-major, in the byte order of the machine. They stay where they are and as they are until the
/// handle that came with them is released, whatever becomes of the trace and the model.
struct mixlora_array {
  const void *data;
  /// Sizes, outermost first; `axes` of them, none for a single number.
  const int64_t *shape;
  int32_t axes;
  /// Bytes of a number: 4 or 8, floating-point; 1: a byte.
  int32_t size;
};

/// The version of this interface: 2. It grows with every change that a caller can notice.
int32_t mixlora_interface(void);

/// What a handle stands for, in words: the text of an error, for everything else JSON; see where handles come from. The text lives until
/// the handle is released. NULL if there is no such handle.
const char *mixlora_text(mixlora_handle handle);

/// Gives a handle back. What others still need lives on: an array without its trace, a trace without its model.
void mixlora_release(mixlora_handle handle);

/// Opens a model. Settings: `model`, a Hugging Face folder or a GGUF file; `adapters`, an array of folders; `precision`, "float32" (the
/// default) or "float64"; `threads`; `evaluation` of the experts and `router_loss`, as `mixlora trace --help` has them; `gradients`: false
/// spares the memory for those of a base model without adapters.
/// Text: {"family", "layers", "channels", "vocabulary", "adapters", "parameters", "precision"}.
mixlora_handle mixlora_open(const char *settings, mixlora_handle *error);

/// The points that a run of a model passes, in the order of a run, as `mixlora trace --list` names them.
/// Text: [{"name", "phase", "operation", "equation", "inputs", "shape"}, …].
mixlora_handle mixlora_points(mixlora_handle model, mixlora_handle *error);

/// The token ids of a text, as the model's tokenizer makes them. Text: [id, …].
mixlora_handle mixlora_tokens(mixlora_handle model, const char *text, mixlora_handle *error);

/// Runs a batch and keeps its tensors. The model is afterwards as it was. Settings: `batch`, a safetensors file (`mixlora trace --help`);
/// `backward`; `activations`: true, or a pattern of their names; `steps` of AdamW with `lr` (1e-3) and `weight_decay` (0.01).
/// Text: {"tensors": [{"name", "phase", "operation", "equation", "inputs"}, …] in the order of the run, "losses": {name: [number, …]},
/// "first_non_finite"}.
mixlora_handle mixlora_trace(mixlora_handle model, const char *settings, mixlora_handle *error);

/// A tensor of a trace: describes it in `array` and returns the handle that keeps its numbers. Nothing is copied.
mixlora_handle mixlora_tensor(mixlora_handle trace, const char *name, struct mixlora_array *array, mixlora_handle *error);

/// Opens a training run, which is a model that mixlora_train_step trains. Settings: those of `mixlora train` by their names with `_` for
/// `-`, and `precision` and `threads`. Nothing is written before mixlora_train_save.
/// Text: that of a model with "steps", "samples", "notes" and, under "settings", the recipe.
mixlora_handle mixlora_train(const char *settings, mixlora_handle *error);

/// Makes the next step. Text: its line of `metrics.jsonl`. An error if all steps are made.
mixlora_handle mixlora_train_step(mixlora_handle training, mixlora_handle *error);

/// Writes what was trained into a folder, as `mixlora train` does. Text: {"step"}.
mixlora_handle mixlora_train_save(mixlora_handle training, const char *folder, mixlora_handle *error);

/// Judges another program's numbers as `mixlora compare` does. Settings: `candidate`, and `name`, which the report
/// calls it by; `model`, `adapters` and `batch`, or `reference`; `map`, `only` and `ignore`, arrays; `precision`, `mode`, `rtol`, `atol`, `steps`, `lr`, `weight_decay`, `replay_routing`,
/// `router_loss`, `threads`.
/// Text: {"matches", "text", "html", "lines": [a tensor, …, the summary]}, the lines as `mixlora compare --json` prints them.
mixlora_handle mixlora_compare(const char *settings, mixlora_handle *error);

/// The bytes of a file that lies in the library: `capture/torch` and `capture/numpy`, which record another program's run, and the demo's
/// `base/config.json`, `base/tokenizer.json`, `base/model.safetensors`, `data/train.jsonl`, `data/test.jsonl`.
mixlora_handle mixlora_file(const char *name, struct mixlora_array *array, mixlora_handle *error);

#ifdef __cplusplus
}
#endif

#endif
