/*
 * The parameters that the page has controls for. Ranges, defaults and explanations are those of the contract
 * (/openapi.json), so that there is no second list of them that could be wrong; this one says which parameters are
 * shown, in what order, and how they look. Pure: tests/http/web_pure.mjs.
 */

/* slider: the end of it, where the contract has none; "codebooks" is as many as the model has. */
const SHOWN = [
  {section: "mask", name: "mask_ratio", label: "Mask ratio", widget: "slider"},
  {section: "mask", name: "periodic_prompt", label: "Periodic prompt", widget: "slider", slider: 100},
  {section: "mask", name: "upper_codebook_mask", label: "Upper codebook mask", widget: "slider", slider: "codebooks"},
  {section: "mask", name: "upper_codebooks", label: "Upper codebooks", widget: "choice"},
  {section: "mask", name: "dropout", label: "Dropout", widget: "slider"},
  {section: "mask", name: "prefix_s", label: "Prefix (s)", widget: "number"},
  {section: "mask", name: "suffix_s", label: "Suffix (s)", widget: "number"},
  {section: "sampling", name: "temperature", label: "Temperature", widget: "number", step: 0.05},
  {section: "sampling", name: "coarse_steps", label: "Coarse steps", widget: "number"},
  {section: "sampling", name: "fine_steps", label: "Fine steps", widget: "number"},
  {section: "", name: "seed", label: "Seed", widget: "number"},
  {section: "", name: "variations", label: "Variations", widget: "number"},
];
const SCHEMAS = {mask: "Mask", sampling: "Sampling", "": "JobParameters"};

const resolve = (document, schema) => !schema.$ref ? schema
  : {...schema.$ref.slice(2).split("/").reduce((found, part) => found[part], document), ...schema};

/** The controls -> [{section, name, pointer, label, widget, minimum, maximum, step, slider, word, choices, standard,
 *  explanation}]. `word` is what may stand in the place of a number. */
export function fieldsOf(document, codebooks) {
  return SHOWN.map((shown) => {
    const schemas = document.components.schemas;
    const schema = resolve(document, schemas[SCHEMAS[shown.section]].properties[shown.name]);
    const number = schema.oneOf ? schema.oneOf.find((one) => one.type) : schema;
    const end = shown.slider === "codebooks" ? codebooks : shown.slider;
    return {
      ...shown,
      pointer: `/${shown.section ? shown.section + "/" : ""}${shown.name}`,
      minimum: number.minimum, maximum: number.maximum, choices: schema.enum,
      slider: number.maximum ?? end,
      step: number.type === "integer" ? 1 : shown.step ?? 0.01,
      word: schema.oneOf?.find((one) => one.const)?.const,
      standard: schema.default, explanation: schema.description ?? "",
    };
  });
}

/** "0 – 1, default 0.5" */
export function rangeText(field) {
  const standard = field.standard === undefined ? "" : `default ${field.standard}`;
  if (field.choices) {
    return standard;
  }
  const range = field.maximum === undefined ? `${field.minimum} and up` : `${field.minimum} – ${field.maximum}`;
  return [range + (field.word ? ` or “${field.word}”` : ""), standard].filter(Boolean).join(", ");
}

/** The control that a problem's pointer (RFC 6901) blames: the field's pointer, or "/mask" where what stands there has
 *  no control of its own, or null. */
export function blamed(pointer, fields) {
  const pointers = [...fields.map((field) => field.pointer), "/preset", "/mask", "/audio"];
  let at = pointer || "";
  while (at && !pointers.includes(at)) {
    at = at.slice(0, at.lastIndexOf("/"));
  }
  return at || null;
}
