/*
 * The few things that all parts of the page do with the document: making elements, saving a file, the clipboard.
 *
 * Text only ever becomes text: nothing here or elsewhere parses HTML.
 */

/** element("button", {class: "small", type: "button", onclick}, "Cancel") -> the element. A property that is null or
 *  false is left out, functions are listeners, everything else is an attribute. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (typeof value === "function") {
      made.addEventListener(key.slice(2), value);
    } else if (value !== null && value !== false && value !== undefined) {
      made.setAttribute(key, value === true ? "" : String(value));
    }
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export const byId = (id) => document.getElementById(id);

/** Gives a blob to the user as a file. */
export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = element("a", {href: address, download: name});
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

/** Copies a text; browsers give navigator.clipboard to secure pages (HTTPS, this machine) only. */
export async function copy(text) {
  if (navigator.clipboard) {
    return navigator.clipboard.writeText(text);
  }
  const area = element("textarea", {class: "unseen", readonly: true}, text);
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** Says something to who looks and to who listens. */
export const announce = (text) => (byId("announcements").textContent = text);
