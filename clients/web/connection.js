/*
 * The way to the daemon: waited for where it is away or still loads its model, and asked with a key where it wants one,
 * which is kept in sessionStorage and never in an address. Requests themselves are vampd.js's.
 */
import {byId} from "./dom.js";
import {connect} from "./vampd.js";

const KEY = "vampd-key"; // in sessionStorage

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

export function showAway(isAway, text = "The daemon does not answer. Waiting for it …") {
  byId("away").hidden = !isAway;
  byId("away").textContent = isAway ? text : "";
}

/** Asks for a key, and gives it to the daemon. */
export async function askKey(daemon) {
  const dialog = byId("key-dialog"), error = byId("key-error"); // shown after a wrong one
  if (dialog.open) {
    return;
  }
  error.hidden = !daemon.key;
  dialog.oncancel = (event) => event.preventDefault();
  dialog.showModal();
  await new Promise((resolve) => (byId("key-form").onsubmit = (event) => {
    event.preventDefault();
    daemon.key = byId("key").value.trim();
    sessionStorage.setItem(KEY, daemon.key);
    byId("key").value = "";
    dialog.close();
    resolve();
  }));
}

/* act(), however long it takes the daemon to be there, and with a key where it wants one. */
async function insist(act, daemon) {
  for (;;) {
    try {
      const answer = await act();
      showAway(false);
      return answer;
    } catch (error) {
      if (error.status === 401) {
        await askKey(daemon);
      } else if (error.name === "Problem" && error.status !== 503) {
        throw error;
      } else {
        showAway(true);
        await pause(2);
      }
    }
  }
}

/** -> {daemon, model, presets}, once the model is loaded. */
export async function open() {
  const daemon = await insist(() => connect("", {key: sessionStorage.getItem(KEY)}));
  for (;;) {
    const {models: [model]} = await insist(() => daemon.models(), daemon);
    if (model) {
      return {daemon, model, ...await insist(() => daemon.presets(), daemon)};
    }
    showAway(true, "The model is being loaded …");
    await pause(1);
  }
}
