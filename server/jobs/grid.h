/*
 * The grid of a sweep: which parameters take which values, and the points that makes.
 *
 *   {"mask.mask_ratio": [0.1, 0.3, 0.5], "mask.periodic_prompt": [3, 7, 13], "seed": [1, 2]}
 *
 * A name is a path into the parameters of a request, its parts joined by dots; objects on the way that are
 * not there are made. The points are all combinations, the first axis slowest, in the order in which the axes
 * were written.
 *
 * Pure functions over JSON; any thread.
 */
#ifndef VAMPD_GRID_H
#define VAMPD_GRID_H

#include <jansson.h>

#include "vamp/error.h"

#define VAMPD_GRID_MAX_AXES 8
#define VAMPD_GRID_MAX_POINTS 4096
#define VAMPD_GRID_MAX_PATH 96

/* How many points: VAMP_INVALID with a JSON pointer where the grid is no grid, VAMP_LIMIT where there are too
 * many. */
int vampd_grid_check(const json_t *grid, int *points, struct vamp_error *error);

/* What a point's parameters are: `base` with the point's values set. New references: *params, and *values, an
 * object of the grid's names. VAMP_INVALID where a path leads through something that is no object. */
int vampd_grid_point(const json_t *grid, const json_t *base, int point, json_t **params, json_t **values,
                     struct vamp_error *error);

#endif
