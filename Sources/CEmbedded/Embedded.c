#include "CEmbedded.h"

// C23's #embed reads each file at compile time, so the program carries them wherever it is moved to.

static const unsigned char config[] = {
#embed "Demo/config.json"
};
static const unsigned char tokenizer[] = {
#embed "Demo/tokenizer.json"
};
static const unsigned char model[] = {
#embed "Demo/model.safetensors"
};
static const unsigned char train[] = {
#embed "Demo/train.txt"
};
static const unsigned char test[] = {
#embed "Demo/test.txt"
};

static const unsigned char capture_torch[] = {
#embed "Capture/mixlora_capture_torch.py"
};
static const unsigned char capture_numpy[] = {
#embed "Capture/mixlora_capture_numpy.py"
};

static const struct embedded_file files[] = {
    {"base/config.json", config, sizeof config, false},
    {"base/tokenizer.json", tokenizer, sizeof tokenizer, false},
    {"base/model.safetensors", model, sizeof model, false},
    {"data/train.jsonl", train, sizeof train, true},
    {"data/test.jsonl", test, sizeof test, true},
};

static const struct embedded_file helpers[] = {
    {"torch", capture_torch, sizeof capture_torch, false},
    {"numpy", capture_numpy, sizeof capture_numpy, false},
};

size_t embedded_file_count(void) { return sizeof files / sizeof files[0]; }

struct embedded_file embedded_file_at(size_t index) { return files[index]; }

size_t capture_helper_count(void) { return sizeof helpers / sizeof helpers[0]; }

struct embedded_file capture_helper_at(size_t index) { return helpers[index]; }
