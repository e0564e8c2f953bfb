/*
 * The geometry of a drawn mask: codebooks × time, the lowest codebook at the bottom, the fine ones apart from the
 * coarse ones, as the daemon's own picture has it. Pure: tests/http/web_pure.mjs.
 */

/** Run lengths of one codebook (kept and masked in turn, beginning with kept) -> Uint8Array, 1 where it is new. */
export function expand(runs, frames) {
  const row = new Uint8Array(frames);
  let at = 0;
  runs.forEach((length, i) => {
    if (i % 2) {
      row.fill(1, at, at + length);
    }
    at += length;
  });
  return row;
}

/** Which share of each of `width` columns is new. A column narrower than a frame takes the frame under it. */
export function columns(row, width) {
  const shares = new Float32Array(width);
  for (let column = 0; column < width; column++) {
    const start = Math.floor(column * row.length / width);
    const end = Math.max(start + 1, Math.floor((column + 1) * row.length / width));
    let sum = 0;
    for (let i = start; i < end; i++) {
      sum += row[i];
    }
    shares[column] = sum / (end - start);
  }
  return shares;
}

/** Where each codebook stands: [{codebook, coarse, top, height}], top to bottom within `height` units. */
export function rows(codebooks, coarse, height, gap) {
  const between = coarse > 0 && coarse < codebooks ? gap : 0;
  const one = (height - between) / codebooks;
  return Array.from({length: codebooks}, (_, i) => {
    const codebook = codebooks - 1 - i;
    const isCoarse = codebook < coarse;
    return {codebook, coarse: isCoarse, top: i * one + (isCoarse ? between : 0), height: one};
  });
}

/** Seconds to write on a time axis of `width` units, at least `apart` units from one another. */
export function ticks(seconds, width, apart) {
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600];
  const step = steps.find((one) => one * width / seconds >= apart) ?? 1200;
  const marks = [];
  for (let i = 0; i * step <= seconds + 1e-9; i++) {
    marks.push(Math.round(i * step * 10) / 10);
  }
  return marks;
}

export const percent = (share) => share === null || share === undefined ? "–" : `${Math.round(100 * share)} %`;

/** A mask in a sentence, for who does not see it. */
export function summary(mask) {
  const {overall, coarse, fine} = mask.density;
  return `${percent(overall)} of the tokens are new: ${percent(coarse)} of the coarse, ${percent(fine)} of the fine.`;
}
