/*
 * The panel of settings: preset, controls, and a mask of one's own, which replaces both. What was set is kept in
 * localStorage for the next visit.
 */
import {makeControls} from "./controls.js";
import {byId, element} from "./dom.js";
import {blamed} from "./fields.js";
import {drawSeed, isTree, paramsOf, presetValues} from "./state.js";

const PLACE = "vampd-settings"; // in localStorage
const TREE = "It is a tree, which the controls below do not reach; to change it, take it over under Advanced.";

/** `changed` is called after every change. -> {params(), reroll(), start(), blamed(error): the control to blame} */
export function makeSettings(fields, presets, changed) {
  const preset = byId("preset"), own = byId("own"), json = byId("json");
  const chosen = () => presets.find((one) => one.name === preset.value);
  const now = () => ({preset: preset.value, values: controls.values(), own: own.checked, json: json.value});
  const params = () => paramsOf(now(), presets, fields);

  const adjust = () => {
    const tree = isTree(chosen().mask);
    byId("mask-fields").disabled = own.checked || tree;
    json.disabled = !own.checked;
    byId("preset-hint").textContent = `${chosen().description} ${tree ? TREE : ""}`;
    if (!own.checked) {
      json.value = JSON.stringify({...chosen().mask, ...params().mask}, null, 1);
    }
    localStorage.setItem(PLACE, JSON.stringify(now()));
    changed();
  };
  const reroll = () => {
    controls.write({"/seed": drawSeed()});
    adjust();
  };

  const controls = makeControls(
    {mask: byId("mask-fields"), sampling: byId("sampling-fields"), "": byId("job-fields")}, fields, adjust);
  controls.inputs("/seed").append(element("button", {
    type: "button", "aria-label": "Draw another seed", title: "Draw another seed", onclick: reroll,
  }, "⚄"));
  preset.append(...presets.map(({name}) => element("option", {value: name}, name)));
  preset.addEventListener("change", () => {
    controls.write(presetValues(chosen(), fields));
    own.checked = false;
    adjust();
  });
  own.addEventListener("change", adjust);
  json.addEventListener("input", adjust);

  /* The defaults, and over them what was set when the page was last here. */
  const start = () => {
    preset.value = (presets.find((one) => one.name === "balanced") ?? presets[0]).name;
    const standard = Object.fromEntries(fields.map((field) => [field.pointer, field.standard]));
    controls.write({...standard, ...presetValues(chosen(), fields), "/seed": drawSeed()});
    const old = JSON.parse(localStorage.getItem(PLACE) ?? "{}");
    if (presets.some((one) => one.name === old.preset)) {
      preset.value = old.preset;
      controls.write(old.values);
      [own.checked, json.value, byId("advanced").open] = [old.own, old.json, old.own];
    }
    adjust();
  };
  /* With a mask of one's own, what is wrong with a mask is wrong with its text. */
  const open = () => fields.filter((field) => field.section !== "mask" || !own.checked);
  return {params, reroll, start, blamed: (error) => blamed(error.pointer, open())};
}
