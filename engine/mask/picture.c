/*
 * The picture of a mask: codebooks up, seconds across.
 *
 *   title      densities
 *   subtitle   what was asked for; length, seed, pass
 *   legend
 *   fine       13 .. 4
 *   coarse      3 .. 0      taller rows, set apart: they carry the structure
 *   seconds
 *   strips     one a layer; after a generation also what changed and how sure the model was
 *
 * A frame is a whole number of pixels wide as long as that fits, so that a single kept frame is a crisp
 * line at 4,000 frames as at 200; words grow with the width, so that they can still be read when the
 * whole is looked at. A mask of more columns than fit is reduced, and a column's shade is the share of
 * its frames that are masked. After a generation cells show the step at which they were fixed.
 */
#include "engine/mask/picture.h"

#include <cairo-svg.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_WIDTH 8192
#define MOST_MARGIN 420 /* left and right together, in any case */
#define GOOD_PLOT_WIDTH 1200
#define MOST_STRIPS 14

static const double ink[3] = {0.13, 0.15, 0.18}, faint[3] = {0.42, 0.45, 0.49};

struct page {
  cairo_t *cairo;
  struct vamp_picture_cells cells;
  double unit; /* what sizes of words and rows are multiplied with */
  int column_width;
  int width, height;
  int left, plot_width;
  int fine_top, coarse_top, axis_top, strips_top;
  int fine_row, coarse_row, strip_row; /* heights, with the line between rows */
  vamp_picture_level *row;             /* [columns] */
  char title[160], subtitle[320];
};

static int scaled(const struct page *page, double size) {
  return (int)lround(size * page->unit);
}

/* ---- words ------------------------------------------------------------------------------------- */

/* Two fonts are all: in an SVG every letter of every font is an outline. */
enum font { WORDS, TITLE };

static double text_width(const struct page *page, enum font font, const char *text) {
  cairo_select_font_face(page->cairo, "sans-serif", CAIRO_FONT_SLANT_NORMAL,
                         font == TITLE ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
  cairo_set_font_size(page->cairo, scaled(page, font == TITLE ? 15 : 11));
  cairo_text_extents_t extents;
  cairo_text_extents(page->cairo, text, &extents);
  return extents.x_advance;
}

/* align 0: from x on; 0.5: around it; 1: up to it. y is the baseline. */
static void write_text(const struct page *page, enum font font, const double colour[3], double align,
                       double x, double y, const char *text) {
  double width = text_width(page, font, text);
  cairo_set_source_rgb(page->cairo, colour[0], colour[1], colour[2]);
  cairo_move_to(page->cairo, round(x - align * width), round(y));
  cairo_show_text(page->cairo, text);
}

/* A name cut to `most` characters, at a character's boundary. */
static void shorten(char *out, size_t size, const char *name, int most) {
  size_t length = 0;
  int characters = 0;
  while (name[length] != '\0' && characters < most && length + 8 < size) {
    do {
      length++;
    } while (((unsigned char)name[length] & 0xC0) == 0x80);
    characters++;
  }
  snprintf(out, size, "%.*s%s", (int)length, name, name[length] != '\0' ? "\xE2\x80\xA6" : "");
}

static double json_number_of(const json_t *object, const char *name) {
  return json_number_value(json_object_get(object, name));
}

/* What was asked for, in words. */
static void describe_request(const struct vamp_mask_pass *pass, char *out, size_t size) {
  const json_t *parameters = pass->parameters;
  if (!parameters) {
    snprintf(out, size, "%d layer%s", pass->layers.count, pass->layers.count == 1 ? "" : "s");
    return;
  }
  const json_t *interval = json_object_get(parameters, "periodic_prompt");
  int prompt = (int)json_number_value(interval);
  char prompts[64] = "no periodic prompt", dropout[48] = "";
  if (json_is_string(interval)) {
    snprintf(prompts, sizeof prompts, "prompt every %s", json_string_value(interval)); /* "beat" */
  } else if (prompt > 0) {
    snprintf(prompts, sizeof prompts, "prompt every %d frame%s", prompt, prompt == 1 ? "" : "s");
  }
  if (json_number_of(parameters, "dropout") > 0) {
    snprintf(dropout, sizeof dropout, ", dropout %.3g", json_number_of(parameters, "dropout"));
  }
  snprintf(out, size, "ratio %.3g, %s, pattern on %d codebooks (upper: %s)%s",
           json_number_of(parameters, "mask_ratio"), prompts,
           (int)json_number_of(parameters, "upper_codebook_mask"),
           json_string_value(json_object_get(parameters, "upper_codebooks")), dropout);
}

static double changed_share(const struct vamp_picture_cells *cells) {
  const struct vamp_mask *mask = &cells->pass->mask;
  int64_t tokens = (int64_t)mask->codebooks * mask->frames, changed = 0;
  for (int64_t i = 0; i < tokens; i++) {
    changed += cells->outcome->codes_before[i] != cells->outcome->codes_after[i];
  }
  return (double)changed / (double)tokens;
}

static void write_titles(struct page *page, int pass) {
  const struct vamp_mask_context *context = &page->cells.plan->context;
  const struct vamp_mask *mask = &page->cells.pass->mask;
  int coarse = context->coarse_codebooks, codebooks = context->codebooks;
  int used = snprintf(page->title, sizeof page->title, "Masked %.3f", vamp_mask_density(mask, 0, codebooks));
  if (coarse > 0 && coarse < codebooks) {
    used += snprintf(page->title + used, sizeof page->title - (size_t)used,
                     "  \xC2\xB7  coarse %.3f  \xC2\xB7  fine %.3f", vamp_mask_density(mask, 0, coarse),
                     vamp_mask_density(mask, coarse, codebooks));
  }
  const struct vamp_mask_outcome *outcome = page->cells.outcome;
  if (outcome && outcome->codes_before && outcome->codes_after) {
    snprintf(page->title + used, sizeof page->title - (size_t)used, "  \xC2\xB7  changed %.3f",
             changed_share(&page->cells));
  }
  char request[160], which[40] = "";
  describe_request(page->cells.pass, request, sizeof request);
  if (page->cells.plan->count > 1) {
    snprintf(which, sizeof which, "  \xC2\xB7  pass %d of %d", pass + 1, page->cells.plan->count);
  }
  snprintf(page->subtitle, sizeof page->subtitle, "%s  \xC2\xB7  %d frame%s, %.1f s  \xC2\xB7  seed %llu%s",
           request, context->frames, context->frames == 1 ? "" : "s",
           (double)context->frames * context->hop_length / context->sample_rate,
           (unsigned long long)page->cells.pass->seed, which);
}

/* ---- layout ------------------------------------------------------------------------------------ */

static int strip_count(const struct page *page) {
  int layers = page->cells.pass->layers.count;
  return layers < MOST_STRIPS ? layers : MOST_STRIPS;
}

static bool shows_steps(const struct page *page) {
  return page->cells.outcome && page->cells.outcome->committed_step;
}

static int outcome_strips(const struct page *page) {
  const struct vamp_mask_outcome *outcome = page->cells.outcome;
  return outcome ? (outcome->codes_before && outcome->codes_after) + (outcome->confidence != NULL) : 0;
}

/* The left margin holds the longest strip's name. */
static int left_margin(const struct page *page) {
  double widest = text_width(page, WORDS, "mean confidence");
  for (int i = 0; i < strip_count(page); i++) {
    char name[64];
    shorten(name, sizeof name, page->cells.pass->layers.layers[i].name, 24);
    double width = text_width(page, WORDS, name);
    widest = width > widest ? width : widest;
  }
  int margin = (int)ceil(widest) + scaled(page, 30);
  return margin < MOST_MARGIN - 40 ? margin : MOST_MARGIN - 40;
}

static void lay_out(struct page *page) {
  const struct vamp_mask_context *context = &page->cells.plan->context;
  int coarse = context->coarse_codebooks, fine = context->codebooks - coarse;
  page->plot_width = page->cells.columns * page->column_width;
  double scale = page->plot_width / 1500.0;
  page->unit = scale < 1 ? 1 : scale > 1.8 ? 1.8 : scale;
  page->left = left_margin(page);
  page->width = page->left + page->plot_width + scaled(page, 26);
  double words = fmax(text_width(page, TITLE, page->title), text_width(page, WORDS, page->subtitle));
  int least = scaled(page, 2 * 20) + (int)ceil(words);
  page->width = page->width < least ? least : page->width;
  page->width = page->width > MOST_WIDTH ? MOST_WIDTH : page->width;
  page->fine_row = scaled(page, 13);
  page->coarse_row = scaled(page, 17);
  page->strip_row = scaled(page, 15);
  page->fine_top = scaled(page, 94);
  page->coarse_top = page->fine_top + fine * page->fine_row + (fine > 0 && coarse > 0 ? scaled(page, 12) : 0);
  page->axis_top = page->coarse_top + coarse * page->coarse_row;
  page->strips_top = page->axis_top + scaled(page, 58);
  int strips = strip_count(page) + outcome_strips(page);
  bool more = page->cells.pass->layers.count > MOST_STRIPS;
  page->height = page->strips_top + (strips + more) * page->strip_row + scaled(page, 14);
}

/* ---- parts ------------------------------------------------------------------------------------- */

static struct vamp_picture_palette group_palette(const struct page *page, bool coarse) {
  return shows_steps(page) ? vamp_picture_palette_steps() : vamp_picture_palette_share(coarse);
}

/* A hairline frame around what may be white. */
static void outline(const struct page *page, double x, double y, double width, double height) {
  cairo_set_source_rgb(page->cairo, 0.72, 0.74, 0.77);
  cairo_set_line_width(page->cairo, 1);
  cairo_rectangle(page->cairo, x - 0.5, y - 0.5, width + 1, height + 1);
  cairo_stroke(page->cairo);
}

/* One group of codebooks, the highest on top: its cells, numbers and name. */
static void draw_group(struct page *page, bool coarse) {
  const struct vamp_mask_context *context = &page->cells.plan->context;
  int low = coarse ? 0 : context->coarse_codebooks;
  int high = coarse ? context->coarse_codebooks : context->codebooks;
  int top = coarse ? page->coarse_top : page->fine_top, step = coarse ? page->coarse_row : page->fine_row;
  if (low == high) {
    return;
  }
  struct vamp_picture_palette palette = group_palette(page, coarse);
  outline(page, page->left, top, page->plot_width, (high - low) * step - 1);
  for (int codebook = low; codebook < high; codebook++) {
    int y = top + (high - 1 - codebook) * step;
    vamp_picture_codebook_row(&page->cells, codebook, page->row);
    vamp_picture_paint_row(page->cairo, &palette, page->row, page->cells.columns, page->column_width,
                           page->left, y, step - 1);
    char number[16];
    snprintf(number, sizeof number, "%d", codebook);
    write_text(page, WORDS, faint, 1, page->left - scaled(page, 7), y + step / 2.0 + scaled(page, 3.7),
               number);
  }
  /* The group's name stands beside its middle, with a bracket over its height. */
  double middle = top + (high - low) * step / 2.0, bracket = page->left - scaled(page, 25);
  write_text(page, WORDS, ink, 1, bracket - scaled(page, 6), middle + scaled(page, 4),
             coarse ? "coarse" : "fine");
  cairo_set_source_rgb(page->cairo, faint[0], faint[1], faint[2]);
  cairo_set_line_width(page->cairo, scaled(page, 1));
  cairo_move_to(page->cairo, bracket, top);
  cairo_line_to(page->cairo, bracket, top + (high - low) * step - 1);
  cairo_stroke(page->cairo);
}

/* The smallest of the usual steps whose labels do not crowd. */
static double tick_step(const struct page *page, double pixels_per_second) {
  static const double steps[] = {0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1,    2,    5,    10,   15,
                                 30,   60,   120,  300, 600, 900, 1800, 3600, 7200, 14400};
  size_t count = sizeof steps / sizeof steps[0];
  for (size_t i = 0; i < count; i++) {
    if (steps[i] * pixels_per_second >= scaled(page, 80)) {
      return steps[i];
    }
  }
  return steps[count - 1];
}

static void draw_axis(const struct page *page) {
  const struct vamp_mask_context *context = &page->cells.plan->context;
  double seconds = (double)context->frames * context->hop_length / context->sample_rate;
  double pixels_per_second = page->plot_width / seconds, step = tick_step(page, pixels_per_second);
  int ticks = (int)floor(seconds / step + 1e-9), y = page->axis_top + scaled(page, 1);
  cairo_set_line_width(page->cairo, scaled(page, 1));
  cairo_set_source_rgb(page->cairo, faint[0], faint[1], faint[2]);
  for (int i = 0; i <= 5 * (ticks + 1); i++) {
    double x = page->left + i * step / 5 * pixels_per_second;
    if (x <= page->left + page->plot_width) {
      cairo_move_to(page->cairo, x, y);
      cairo_line_to(page->cairo, x, y + scaled(page, i % 5 ? 3 : 7));
    }
  }
  cairo_stroke(page->cairo);
  for (int i = 0; i <= ticks; i++) {
    char label[32];
    snprintf(label, sizeof label, "%g", i * step);
    write_text(page, WORDS, ink, 0.5, page->left + i * step * pixels_per_second, y + scaled(page, 18), label);
  }
  write_text(page, WORDS, faint, 1, page->left - scaled(page, 12), y + scaled(page, 18), "seconds");
}

static void draw_strip(const struct page *page, int index, const char *name) {
  struct vamp_picture_palette palette = vamp_picture_palette_strip();
  int y = page->strips_top + index * page->strip_row, height = page->strip_row - scaled(page, 5);
  char shortened[64];
  shorten(shortened, sizeof shortened, name, 24);
  write_text(page, WORDS, ink, 1, page->left - scaled(page, 9), y + height / 2.0 + scaled(page, 3.7),
             shortened);
  vamp_picture_paint_row(page->cairo, &palette, page->row, page->cells.columns, page->column_width,
                         page->left, y, height);
}

static void draw_strips(const struct page *page) {
  const struct vamp_mask_layers *layers = &page->cells.pass->layers;
  const struct vamp_mask_outcome *outcome = page->cells.outcome;
  int index = 0;
  write_text(page, WORDS, faint, 0, page->left, page->strips_top - scaled(page, 7),
             outcome_strips(page) > 0
                 ? "Each layer alone, dark where it masks; below, dark where most changed "
                   "and where the model was sure"
                 : "Each layer alone, dark where it masks");
  for (; index < strip_count(page); index++) {
    vamp_picture_layer_row(&page->cells, &layers->layers[index], page->row);
    draw_strip(page, index, layers->layers[index].name);
  }
  if (outcome && outcome->codes_before && outcome->codes_after) {
    vamp_picture_changed_row(&page->cells, page->row);
    draw_strip(page, index++, "changed");
  }
  if (outcome && outcome->confidence) {
    vamp_picture_confidence_row(&page->cells, page->row);
    draw_strip(page, index++, "mean confidence");
  }
  if (layers->count > MOST_STRIPS) {
    char more[48];
    snprintf(more, sizeof more, "and %d more layers", layers->count - MOST_STRIPS);
    write_text(page, WORDS, faint, 0, page->left,
               page->strips_top + index * page->strip_row + scaled(page, 10), more);
  }
}

/* A box of one colour and its meaning; returns where the next may begin. */
static double draw_key(const struct page *page, double x, const double *colour, const char *meaning) {
  double y = scaled(page, 66), size = scaled(page, 11);
  cairo_set_source_rgb(page->cairo, colour[0], colour[1], colour[2]);
  cairo_rectangle(page->cairo, x, y, size, size);
  cairo_fill(page->cairo);
  outline(page, x, y, size, size);
  x += size + scaled(page, 6);
  write_text(page, WORDS, ink, 0, x, y + scaled(page, 9.5), meaning);
  return x + text_width(page, WORDS, meaning) + scaled(page, 18);
}

static void draw_legend(const struct page *page) {
  struct vamp_picture_palette coarse = group_palette(page, true), fine = group_palette(page, false);
  double x = draw_key(page, scaled(page, 20), coarse.colour[0], "kept");
  if (!shows_steps(page)) {
    x = draw_key(page, x, coarse.colour[VAMP_PICTURE_LEVELS], "coarse masked");
    draw_key(page, x, fine.colour[VAMP_PICTURE_LEVELS], "fine masked");
    return;
  }
  write_text(page, WORDS, ink, 0, x, scaled(page, 75.5), "fixed at the first step");
  x += text_width(page, WORDS, "fixed at the first step") + scaled(page, 7);
  for (int level = 1; level <= VAMP_PICTURE_LEVELS; level++) {
    const double *colour = coarse.colour[level];
    cairo_set_source_rgb(page->cairo, colour[0], colour[1], colour[2]);
    cairo_rectangle(page->cairo, x, scaled(page, 66), scaled(page, 9), scaled(page, 11));
    cairo_fill(page->cairo);
    x += scaled(page, 9);
  }
  char last[80];
  snprintf(last, sizeof last, "at the last (coarse %d, fine %d)", page->cells.last_step[0] + 1,
           page->cells.last_step[1] + 1);
  write_text(page, WORDS, ink, 0, x + scaled(page, 7), scaled(page, 75.5), last);
}

static void draw_page(struct page *page) {
  cairo_set_source_rgb(page->cairo, 1, 1, 1);
  cairo_paint(page->cairo);
  write_text(page, TITLE, ink, 0, scaled(page, 20), scaled(page, 30), page->title);
  write_text(page, WORDS, faint, 0, scaled(page, 20), scaled(page, 50), page->subtitle);
  draw_legend(page);
  draw_group(page, false);
  draw_group(page, true);
  draw_axis(page);
  draw_strips(page);
}

/* ---- files ------------------------------------------------------------------------------------- */

struct stream {
  unsigned char *data;
  size_t size, room;
};

static cairo_status_t stream_write(void *closure, const unsigned char *data, unsigned int length) {
  struct stream *stream = closure;
  if (stream->size + length > stream->room) {
    size_t room = (stream->size + length) * 2 + 4096;
    unsigned char *larger = realloc(stream->data, room);
    if (!larger) {
      return CAIRO_STATUS_NO_MEMORY;
    }
    stream->data = larger;
    stream->room = room;
  }
  memcpy(stream->data + stream->size, data, length);
  stream->size += length;
  return CAIRO_STATUS_SUCCESS;
}

/* Words must be measured before the page has a size: on a surface of one pixel. */
static cairo_status_t measure(struct page *page) {
  cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, 1, 1);
  page->cairo = cairo_create(surface);
  lay_out(page);
  cairo_status_t status = cairo_status(page->cairo);
  cairo_destroy(page->cairo);
  cairo_surface_destroy(surface);
  return status;
}

static cairo_status_t render(struct page *page, enum vamp_picture_format format, struct stream *stream) {
  cairo_surface_t *surface;
  if (format == VAMP_PICTURE_SVG) {
    surface = cairo_svg_surface_create_for_stream(stream_write, stream, page->width, page->height);
    cairo_svg_surface_set_document_unit(surface, CAIRO_SVG_UNIT_PX);
  } else {
    surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, page->width, page->height);
  }
  page->cairo = cairo_create(surface);
  draw_page(page);
  cairo_status_t status = cairo_status(page->cairo);
  cairo_destroy(page->cairo);
  if (status == CAIRO_STATUS_SUCCESS && format == VAMP_PICTURE_PNG) {
    status = cairo_surface_write_to_png_stream(surface, stream_write, stream);
  }
  cairo_surface_finish(surface);
  if (status == CAIRO_STATUS_SUCCESS) {
    status = cairo_surface_status(surface);
  }
  cairo_surface_destroy(surface);
  return status;
}

int vamp_mask_picture(const struct vamp_mask_plan *plan, int pass, const struct vamp_mask_outcome *outcome,
                      enum vamp_picture_format format, void **data, size_t *size, struct vamp_error *error) {
  if (pass < 0 || pass >= plan->count) {
    return vamp_fail(error, VAMP_INVALID, "there is no pass %d: the mask has %d.", pass, plan->count);
  }
  int frames = plan->context.frames, most = MOST_WIDTH - MOST_MARGIN;
  int columns = frames < most ? frames : most;
  struct page page = {.cells = vamp_picture_cells_of(plan, pass, outcome, columns)};
  long column_width = lround((double)GOOD_PLOT_WIDTH / columns);
  page.column_width = column_width < 1 ? 1 : column_width > 24 ? 24 : (int)column_width;
  write_titles(&page, pass);
  struct stream stream = {0};
  page.row = malloc((size_t)columns);
  cairo_status_t status = page.row ? measure(&page) : CAIRO_STATUS_NO_MEMORY;
  if (status == CAIRO_STATUS_SUCCESS) {
    status = render(&page, format, &stream);
  }
  free(page.row);
  if (status != CAIRO_STATUS_SUCCESS) {
    free(stream.data);
    return vamp_fail(error, status == CAIRO_STATUS_NO_MEMORY ? VAMP_MEMORY : VAMP_IO,
                     "the picture of the mask could not be drawn: %s.", cairo_status_to_string(status));
  }
  *data = stream.data;
  *size = stream.size;
  return 0;
}
