/*
 * A control for each parameter (fields.js): a number box, a slider beside it, a list, with what it does, its range and
 * its default below, and there too what the daemon says is wrong with it.
 */
import {element} from "./dom.js";
import {rangeText} from "./fields.js";

/* -> {read, write}: of a list of words. */
function choice(field, id, described, changed) {
  const select = element("select", {id, "aria-describedby": described, onchange: changed},
                         ...field.choices.map((value) => element("option", {value}, value)));
  return {parts: [select], read: () => select.value, write: (value) => (select.value = value)};
}

/* The same of a number, with a slider where it has one, and a box to tick for the word in its place. */
function number(field, id, described, changed) {
  const step = field.widget === "number" && field.minimum % 1 === 0 ? field.step : "any";
  const box = element("input", {type: "number", id, min: field.minimum, max: field.maximum, step, inputmode: "decimal",
                                "aria-describedby": described});
  const slider = field.widget === "slider" ? element("input", {
    type: "range", min: field.minimum, max: field.slider, step: field.step, "aria-label": `${field.label}, slider`,
  }) : null;
  const word = field.word ? element("input", {type: "checkbox"}) : null;
  const match = () => {
    if (slider && box.value !== "") {
      slider.value = box.value;
    }
    [box, slider].forEach((part) => part?.toggleAttribute("disabled", Boolean(word?.checked)));
  };
  box.addEventListener("input", () => (match(), changed()));
  slider?.addEventListener("input", () => ((box.value = slider.value), changed()));
  word?.addEventListener("change", () => (match(), changed()));
  return {
    parts: [slider, box, word && element("label", {class: "check"}, word, ` ${field.word}`)],
    read: () => word?.checked ? field.word : box.value === "" ? null : Number(box.value),
    write: (value) => {
      box.value = word && value === field.word ? "" : value ?? "";
      if (word) {
        word.checked = value === field.word;
      }
      match();
    },
  };
}

function makeField(field, changed) {
  const id = `field${field.pointer.replaceAll("/", "-")}`;
  const control = (field.choices ? choice : number)(field, id, `${id}-hint ${id}-error`, changed);
  const error = element("p", {class: "error", id: `${id}-error`, hidden: true});
  const root = element("div", {class: `field ${field.widget === "number" ? "short" : ""}`, "data-pointer": field.pointer},
                       element("label", {for: id}, field.label),
                       element("div", {class: "inputs"}, ...control.parts),
                       element("p", {class: "hint", id: `${id}-hint`}, `${field.explanation} (${rangeText(field)}).`),
                       error);
  return {...control, root};
}

/** Puts the controls into their sections {mask, sampling, "": element}; `changed` is called after a change by hand.
 *  -> {values(), write({pointer: value}), inputs(pointer)}: `inputs` is the element that more can be put beside. */
export function makeControls(sections, fields, changed) {
  const made = new Map();
  for (const field of fields) {
    const control = makeField(field, changed);
    made.set(field.pointer, control);
    sections[field.section].insertBefore(control.root, sections[field.section].querySelector(":scope > .check"));
  }
  return {
    values: () => Object.fromEntries([...made].map(([pointer, control]) => [pointer, control.read()])),
    write: (values) => {
      for (const [pointer, value] of Object.entries(values)) {
        made.get(pointer)?.write(value);
      }
    },
    inputs: (pointer) => made.get(pointer).root.querySelector(".inputs"),
  };
}

/** Marks what stands under a pointer as wrong and says why; null marks nothing. Marks from before go. */
export function mark(pointer, text, {focus = false} = {}) {
  for (const old of document.querySelectorAll(".blamed")) {
    old.classList.remove("blamed");
    old.querySelectorAll("[aria-invalid]").forEach((one) => one.removeAttribute("aria-invalid"));
    old.querySelector(".error").hidden = true;
  }
  const root = pointer && document.querySelector(`[data-pointer="${CSS.escape(pointer)}"]`);
  if (!root) {
    return;
  }
  const error = root.querySelector(".error");
  const input = root.querySelector("input[type=number], select, textarea, input[type=file]");
  error.textContent = text;
  error.hidden = false;
  root.classList.add("blamed");
  input.setAttribute("aria-invalid", "true");
  root.closest("details")?.setAttribute("open", "");
  if (focus) {
    input.focus();
  }
}
