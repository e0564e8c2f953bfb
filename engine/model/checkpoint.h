/*
 * Weights as the model graph asks for them: by name and expected shape, as plain float, with weight norm
 * folded and LoRA adapters merged.
 *
 * Every array handed out is malloc'd and the caller's to free. Shapes are compared without trailing
 * dimensions of 1, because a 1x1 convolution [out, in, 1] is the matrix [out, in]. On any mismatch the
 * error names the file, the tensor, and both shapes.
 *
 * A checkpoint belongs to one thread.
 */
#ifndef VAMP_ENGINE_MODEL_CHECKPOINT_H
#define VAMP_ENGINE_MODEL_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vamp/error.h"

struct vamp_checkpoint; /* one file of a model folder */

/* Opens FOLDER/PART.safetensors; part is "codec", "coarse" or "c2f". */
int vamp_checkpoint_open(const char *folder, const char *part, struct vamp_checkpoint **checkpoint,
                         struct vamp_error *error);
void vamp_checkpoint_close(struct vamp_checkpoint *checkpoint); /* NULL is fine */

const char *vamp_checkpoint_name(const struct vamp_checkpoint *checkpoint); /* the file's, for messages */
bool vamp_checkpoint_has(const struct vamp_checkpoint *checkpoint, const char *name);

/* One tensor as it is stored: *values float [product of shape]. */
int vamp_checkpoint_tensor(struct vamp_checkpoint *checkpoint, const char *name, int rank,
                           const int64_t *shape, float **values, struct vamp_error *error);

/* A convolution's weight [dims[0], dims[1], dims[2]]: PREFIX.weight, or PREFIX.weight_g [dims[0]] and
 * PREFIX.weight_v [dims] folded to g * v / |v|, the norm over all dimensions but the first. */
int vamp_checkpoint_conv_weight(struct vamp_checkpoint *checkpoint, const char *prefix, const int64_t dims[3],
                                float **weight, struct vamp_error *error);

/* A matrix [out, in]: the same, and where PREFIX.lora_A [r, in] and PREFIX.lora_B [out, r] are present,
 * plus lora_B * lora_A / r. */
int vamp_checkpoint_linear_weight(struct vamp_checkpoint *checkpoint, const char *prefix, int64_t out,
                                  int64_t in, float **weight, struct vamp_error *error);

/* Tensors nobody has asked for so far. They are no error: a checkpoint may carry what only training
 * needs. *first (may be NULL) becomes the name of one of them, or NULL; it lives as long as the file. */
size_t vamp_checkpoint_unused(const struct vamp_checkpoint *checkpoint, const char **first);

#endif
