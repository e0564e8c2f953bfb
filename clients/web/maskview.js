/*
 * Drawing: the waveform, and under it the mask over the same time. Geometry is maskshape.js's; colours are the style
 * sheet's, so that both are drawn anew when the system turns dark.
 */
import {columns, expand, rows, ticks} from "./maskshape.js";
import {peaks} from "./sound.js";

const MARGIN = 40;  // left of both, for the names of rows
const AXIS = 22;    // below the mask
const GAP = 6;      // between coarse and fine

/* -> {context, width, height} in CSS pixels, cleared, sharp on any screen. */
function prepare(canvas) {
  const scale = window.devicePixelRatio || 1;
  const {width, height} = canvas.getBoundingClientRect();
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  return {context, width: Math.max(1, Math.floor(width - MARGIN)), height: Math.floor(height)};
}

const colours = (canvas) => (name) => getComputedStyle(canvas).getPropertyValue(`--${name}`).trim();

export function drawWaveform(canvas, samples) {
  const {context, width, height} = prepare(canvas), colour = colours(canvas);
  context.fillStyle = colour("line");
  context.fillRect(MARGIN, height / 2, width, 1);
  if (samples) {
    const drawn = peaks(samples, width), loudest = Math.max(0.01, ...drawn.map(Math.abs));
    context.fillStyle = colour("wave");
    for (let x = 0; x < width; x++) {
      const [bottom, top] = [drawn[2 * x], drawn[2 * x + 1]].map((value) => (1 - value / loudest) * height / 2);
      context.fillRect(MARGIN + x, top, 1, Math.max(1, bottom - top));
    }
  }
}

/* One codebook, run by run of columns that look the same. */
function drawRow(context, shares, top, height) {
  for (let start = 0; start < shares.length;) {
    let end = start + 1;
    while (end < shares.length && shares[end] === shares[start]) {
      end++;
    }
    context.globalAlpha = shares[start];
    context.fillRect(MARGIN + start, top, end - start, height);
    start = end;
  }
  context.globalAlpha = 1;
}

function drawAxis(context, seconds, width, top, colour) {
  const marks = ticks(seconds, width, 55);
  context.fillStyle = colour("soft");
  context.textBaseline = "top";
  marks.forEach((mark, i) => {
    const x = MARGIN + mark * width / seconds;
    context.textAlign = x > MARGIN + width - 12 ? "right" : "center";
    context.fillRect(Math.min(x, MARGIN + width - 1), top, 1, 4);
    context.fillText(i === 0 ? "0 s" : String(mark), x, top + 7);
  });
}

/** `pass` is a pass of the mask document, or null. */
export function drawMask(canvas, pass) {
  const {context, width, height} = prepare(canvas), colour = colours(canvas);
  if (!pass) {
    return;
  }
  const bottom = height - AXIS;
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (const {codebook, coarse, top, height: tall} of rows(pass.codebooks, pass.coarse_codebooks, bottom, GAP)) {
    const thick = Math.max(1, tall - 1);
    context.fillStyle = colour("kept");
    context.fillRect(MARGIN, top, width, thick);
    context.fillStyle = colour(coarse ? "coarse" : "fine");
    drawRow(context, columns(expand(pass.mask[codebook], pass.frames), width), top, thick);
    if (tall >= 11 || codebook % 4 === 0) {
      context.fillStyle = colour("soft");
      context.fillText(String(codebook), MARGIN - 6, top + tall / 2);
    }
  }
  drawAxis(context, pass.frames / pass.frame_rate, width, bottom + 2, colour);
}
