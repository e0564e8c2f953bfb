/*
 * What the files of the picture share: picture.c decides where things stand and writes the words,
 * picture_cells.c colours the cells.
 */
#ifndef VAMP_MASK_PICTURE_H
#define VAMP_MASK_PICTURE_H

#include <cairo.h>
#include <stdint.h>

#include "engine/mask/internal.h"

/* Shades between nothing masked (or the first step) and all (or the last). */
#define VAMP_PICTURE_LEVELS 12

/* 0: kept. 1 .. VAMP_PICTURE_LEVELS: shades of masked. */
typedef uint8_t vamp_picture_level;

struct vamp_picture_palette {
  double colour[VAMP_PICTURE_LEVELS + 1][3]; /* red, green, blue, 0 .. 1 */
};

/* kept -> masked, for masks; and for strips. */
struct vamp_picture_palette vamp_picture_palette_share(bool coarse);
struct vamp_picture_palette vamp_picture_palette_strip(void);
/* first step -> last step. */
struct vamp_picture_palette vamp_picture_palette_steps(void);

struct vamp_picture_cells {
  const struct vamp_mask_plan *plan;
  const struct vamp_mask_pass *pass;
  const struct vamp_mask_outcome *outcome; /* NULL: the mask alone */
  int columns;                             /* <= frames: a column is a frame, or several */
  int32_t last_step[2];                    /* the highest committed step of coarse, fine; 0 where none */
};

struct vamp_picture_cells vamp_picture_cells_of(const struct vamp_mask_plan *plan, int pass,
                                                const struct vamp_mask_outcome *outcome, int columns);

/* One row of cells [columns]: of a codebook, of a layer (over its codebooks), or of what the generation
 * changed or how sure it was (over all codebooks). */
void vamp_picture_codebook_row(const struct vamp_picture_cells *cells, int codebook, vamp_picture_level *row);
void vamp_picture_layer_row(const struct vamp_picture_cells *cells, const struct vamp_mask_layer *layer,
                            vamp_picture_level *row);
void vamp_picture_changed_row(const struct vamp_picture_cells *cells, vamp_picture_level *row);
void vamp_picture_confidence_row(const struct vamp_picture_cells *cells, vamp_picture_level *row);

/* Paints a row: each run of equal cells is one piece of one path, so that an SVG stays small. */
void vamp_picture_paint_row(cairo_t *cairo, const struct vamp_picture_palette *palette,
                            const vamp_picture_level *row, int columns, int column_width, int x, int y,
                            int height);

#endif
