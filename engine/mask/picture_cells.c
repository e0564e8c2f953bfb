/*
 * The cells of a picture: which shade each has, and how they get onto the page.
 *
 * Colours are chosen to be told apart by lightness alone, so that they survive every kind of colour
 * blindness and a grey printer: a mask is dark blue on pale sand; steps run from dark blue over grey to
 * yellow, and what was kept is white.
 */
#include "engine/mask/picture.h"

#include <math.h>

static struct vamp_picture_palette mix(const double from[3], const double to[3]) {
  struct vamp_picture_palette palette;
  for (int level = 0; level <= VAMP_PICTURE_LEVELS; level++) {
    double share = (double)level / VAMP_PICTURE_LEVELS;
    for (int i = 0; i < 3; i++) {
      palette.colour[level][i] = from[i] + share * (to[i] - from[i]);
    }
  }
  return palette;
}

struct vamp_picture_palette vamp_picture_palette_share(bool coarse) {
  static const double kept[3] = {0.98, 0.89, 0.698};
  static const double masked_coarse[3] = {0.07, 0.29, 0.49}, masked_fine[3] = {0.36, 0.56, 0.73};
  return mix(kept, coarse ? masked_coarse : masked_fine);
}

struct vamp_picture_palette vamp_picture_palette_strip(void) {
  static const double nothing[3] = {0.93, 0.93, 0.93}, everything[3] = {0.25, 0.29, 0.33};
  return mix(nothing, everything);
}

struct vamp_picture_palette vamp_picture_palette_steps(void) {
  static const double stops[5][3] = {
      {0.02, 0.15, 0.36}, {0.25, 0.36, 0.52}, {0.49, 0.49, 0.48}, {0.74, 0.66, 0.36}, {0.99, 0.88, 0.20},
  };
  struct vamp_picture_palette palette = {{{1, 1, 1}}};
  for (int level = 1; level <= VAMP_PICTURE_LEVELS; level++) {
    double at = 4.0 * (level - 1) / (VAMP_PICTURE_LEVELS - 1);
    int stop = at < 4 ? (int)at : 3;
    for (int i = 0; i < 3; i++) {
      palette.colour[level][i] = stops[stop][i] + (at - stop) * (stops[stop + 1][i] - stops[stop][i]);
    }
  }
  return palette;
}

struct vamp_picture_cells vamp_picture_cells_of(const struct vamp_mask_plan *plan, int pass,
                                                const struct vamp_mask_outcome *outcome, int columns) {
  struct vamp_picture_cells cells = {.plan = plan, .pass = &plan->passes[pass], .outcome = outcome};
  cells.columns = columns;
  if (outcome && outcome->committed_step) {
    const struct vamp_mask *mask = &cells.pass->mask;
    int64_t coarse = (int64_t)plan->context.coarse_codebooks * mask->frames;
    for (int64_t i = 0; i < (int64_t)mask->codebooks * mask->frames; i++) {
      int32_t *last = &cells.last_step[i >= coarse];
      *last = outcome->committed_step[i] > *last ? outcome->committed_step[i] : *last;
    }
  }
  return cells;
}

/* The frames [*from, *to) of a column; at least one. */
static void column_frames(const struct vamp_picture_cells *cells, int column, int *from, int *to) {
  int64_t frames = cells->plan->context.frames;
  *from = (int)(frames * column / cells->columns);
  *to = (int)(frames * (column + 1) / cells->columns);
}

/* A share 0 .. 1 as a level; anything above 0 is seen. */
static vamp_picture_level share_level(double share) {
  long level = lround(share * VAMP_PICTURE_LEVELS);
  return share <= 0 ? 0 : level < 1 ? 1 : (vamp_picture_level)level;
}

void vamp_picture_codebook_row(const struct vamp_picture_cells *cells, int codebook,
                               vamp_picture_level *row) {
  const struct vamp_mask *mask = &cells->pass->mask;
  const int32_t *steps = cells->outcome ? cells->outcome->committed_step : NULL;
  size_t start = (size_t)codebook * (size_t)mask->frames;
  int32_t last = cells->last_step[codebook >= cells->plan->context.coarse_codebooks];
  for (int column = 0; column < cells->columns; column++) {
    int from, to;
    column_frames(cells, column, &from, &to);
    int masked = 0;
    double step = 0;
    for (int frame = from; frame < to; frame++) {
      if (mask->data[start + (size_t)frame]) {
        masked++;
        step += steps && steps[start + (size_t)frame] > 0 ? steps[start + (size_t)frame] : 0;
      }
    }
    if (!steps) {
      row[column] = share_level((double)masked / (to - from));
    } else if (2 * masked < to - from || masked == 0) {
      row[column] = 0;
    } else {
      double late = last > 0 ? step / masked / last : 0;
      row[column] = (vamp_picture_level)(1 + lround(late * (VAMP_PICTURE_LEVELS - 1)));
    }
  }
}

void vamp_picture_layer_row(const struct vamp_picture_cells *cells, const struct vamp_mask_layer *layer,
                            vamp_picture_level *row) {
  for (int column = 0; column < cells->columns; column++) {
    int from, to, masked = 0;
    column_frames(cells, column, &from, &to);
    for (int codebook = layer->low; codebook < layer->high; codebook++) {
      for (int frame = from; frame < to; frame++) {
        masked += vamp_mask_layer_get(layer, cells->plan->context.frames, codebook, frame);
      }
    }
    row[column] = share_level((double)masked / ((double)(layer->high - layer->low) * (to - from)));
  }
}

void vamp_picture_changed_row(const struct vamp_picture_cells *cells, vamp_picture_level *row) {
  const struct vamp_mask *mask = &cells->pass->mask;
  for (int column = 0; column < cells->columns; column++) {
    int from, to, changed = 0;
    column_frames(cells, column, &from, &to);
    for (int codebook = 0; codebook < mask->codebooks; codebook++) {
      for (int frame = from; frame < to; frame++) {
        size_t at = (size_t)codebook * (size_t)mask->frames + (size_t)frame;
        changed += cells->outcome->codes_before[at] != cells->outcome->codes_after[at];
      }
    }
    row[column] = share_level((double)changed / ((double)mask->codebooks * (to - from)));
  }
}

void vamp_picture_confidence_row(const struct vamp_picture_cells *cells, vamp_picture_level *row) {
  const struct vamp_mask *mask = &cells->pass->mask;
  for (int column = 0; column < cells->columns; column++) {
    int from, to, masked = 0;
    double sum = 0;
    column_frames(cells, column, &from, &to);
    for (int codebook = 0; codebook < mask->codebooks; codebook++) {
      for (int frame = from; frame < to; frame++) {
        size_t at = (size_t)codebook * (size_t)mask->frames + (size_t)frame;
        float confidence = cells->outcome->confidence[at];
        masked += mask->data[at];
        sum += mask->data[at] && confidence > 0 ? fminf(confidence, 1) : 0;
      }
    }
    row[column] = masked > 0 ? share_level(sum / masked) : VAMP_PICTURE_LEVELS;
  }
}

/* A run is a stroke as wide as the row is high: two points in an SVG where a rectangle has five. */
static void stroke_level(cairo_t *cairo, const vamp_picture_level *row, int columns, int column_width, int x,
                         double middle, vamp_picture_level level) {
  for (int column = 0; column < columns;) {
    int end = column + 1;
    while (end < columns && row[end] == row[column]) {
      end++;
    }
    if (row[column] == level) {
      cairo_move_to(cairo, x + column * column_width, middle);
      cairo_line_to(cairo, x + end * column_width, middle);
    }
    column = end;
  }
  cairo_stroke(cairo);
}

void vamp_picture_paint_row(cairo_t *cairo, const struct vamp_picture_palette *palette,
                            const vamp_picture_level *row, int columns, int column_width, int x, int y,
                            int height) {
  int count[VAMP_PICTURE_LEVELS + 1] = {0}, ground = 0;
  for (int column = 0; column < columns; column++) {
    count[row[column]] += column == 0 || row[column] != row[column - 1];
  }
  for (int level = 1; level <= VAMP_PICTURE_LEVELS; level++) {
    ground = count[level] > count[ground] ? level : ground;
  }
  /* The level with the most runs is the ground that the others lie on. */
  const double *colour = palette->colour[ground];
  cairo_set_source_rgb(cairo, colour[0], colour[1], colour[2]);
  cairo_rectangle(cairo, x, y, columns * column_width, height);
  cairo_fill(cairo);
  cairo_set_line_width(cairo, height);
  for (int level = 0; level <= VAMP_PICTURE_LEVELS; level++) {
    if (level != ground && count[level] > 0) {
      colour = palette->colour[level];
      cairo_set_source_rgb(cairo, colour[0], colour[1], colour[2]);
      stroke_level(cairo, row, columns, column_width, x, y + height / 2.0, (vamp_picture_level)level);
    }
  }
}
