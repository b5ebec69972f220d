#ifndef CEMBEDDED_H
#define CEMBEDDED_H

#include <stdbool.h>
#include <stddef.h>

/// A file that was put into the binary when it was compiled.
struct embedded_file {
  const char *_Nonnull name;
  const unsigned char *_Nonnull bytes;
  size_t size;
  /// Whether the bytes are a short form of the file: a line `task: question -> answer` for a line of JSON.
  bool is_short;
};

/// How many there are.
size_t embedded_file_count(void);

/// The file of this number.
struct embedded_file embedded_file_at(size_t index);

/// How many helpers for recording another program's run there are.
size_t capture_helper_count(void);

/// The helper of this number; its name is the framework's.
struct embedded_file capture_helper_at(size_t index);

#endif
