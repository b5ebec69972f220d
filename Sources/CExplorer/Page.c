#include "CExplorer.h"

// C23's #embed reads each file at compile time, so the program carries the page wherever it is moved to.

static const unsigned char page[] = {
#embed "Page/page.html"
};
static const unsigned char style[] = {
#embed "Page/style.css"
};
static const unsigned char data[] = {
#embed "Page/data.js"
};
static const unsigned char why[] = {
#embed "Page/why.js"
};
static const unsigned char why_backward[] = {
#embed "Page/why-backward.js"
};
static const unsigned char draw[] = {
#embed "Page/draw.js"
};
static const unsigned char model[] = {
#embed "Page/model.js"
};
static const unsigned char number[] = {
#embed "Page/number.js"
};
static const unsigned char views[] = {
#embed "Page/views.js"
};
static const unsigned char legend[] = {
#embed "Page/legend.js"
};
static const unsigned char start[] = {
#embed "Page/start.js"
};

static const struct page_part parts[] = {
    {"page.html", page, sizeof page},
    {"style.css", style, sizeof style},
    {"data.js", data, sizeof data},
    {"why.js", why, sizeof why},
    {"why-backward.js", why_backward, sizeof why_backward},
    {"draw.js", draw, sizeof draw},
    {"model.js", model, sizeof model},
    {"number.js", number, sizeof number},
    {"views.js", views, sizeof views},
    {"legend.js", legend, sizeof legend},
    {"start.js", start, sizeof start},
};

size_t page_part_count(void) { return sizeof parts / sizeof parts[0]; }

struct page_part page_part_at(size_t index) { return parts[index]; }
