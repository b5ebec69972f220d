#ifndef CEXPLORER_H
#define CEXPLORER_H

#include <stddef.h>

/// A part of the explorer's page, put into the binary when it was compiled.
struct page_part {
  const char *_Nonnull name;
  const unsigned char *_Nonnull bytes;
  size_t size;
};

/// How many there are.
size_t page_part_count(void);

/// The part of this number; scripts are in the order in which they run.
struct page_part page_part_at(size_t index);

#endif
