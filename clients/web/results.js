/*
 * The list of variations as it is shown: a card for each job, changed in place so that a player goes on playing while
 * others are generated.
 */
import {announce, byId, copy, element, save} from "./dom.js";
import {isFinished, stateText} from "./joblist.js";
import {percent} from "./maskshape.js";
import {lengthText} from "./sound.js";
import {curlOf, repeatable} from "./state.js";

/* What the daemon tells of a finished variation, in a line. */
const facts = ({density, changed, measures, timings}) => [
  density && `${percent(density.overall)} of the tokens invented`,
  changed && `${percent(changed.overall)} came out different`,
  ...Object.entries(measures ?? {}).map(([name, value]) => `${name} ${value}`),
  timings && `made in ${lengthText(timings.total)}`,
].filter(Boolean).join(" · ");

/** daemon: of vampd.js; jobs: of makeJobs, given later; use(file): takes a variation as the clip; refused(problem).
 *  -> show(list) */
export function makeResults(daemon, {jobs, use, refused}) {
  const cards = new Map();
  const nameOf = ({clip, job}, ending) => `${clip.replace(/\.[^.]*$/, "")}-${job.seed}.${ending}`;

  /* What is looked at is loaded; with a key, an address is not enough for a player. */
  const load = async (player) => (player.src = daemon.key
    ? URL.createObjectURL((await daemon.job_audio({id: player.dataset.id})).blob()) : player.dataset.audio);
  const visible = new IntersectionObserver((seen) => {
    for (const {target} of seen.filter((one) => one.isIntersecting)) {
      visible.unobserve(target);
      load(target).catch(refused);
    }
  });

  const button = (entry, text, act, said = "") => element("button", {
    type: "button", onclick: () => act(cards.get(entry.id).entry).then(() => announce(said), refused),
  }, text);

  const player = ({id, clip, job}) => {
    const made = element("audio", {controls: true, preload: "metadata", "data-id": id, "data-audio": job.links.audio,
                                   "aria-label": `Variation of ${clip}, seed ${job.seed}`});
    visible.observe(made);
    return made;
  };

  const picture = (entry) => {
    const image = element("img", {alt: `The mask of the variation with seed ${entry.job.seed}`});
    const opened = async ({target}) => {
      if (target.open && !image.src) {
        const answer = await daemon.job_mask_png({id: entry.id});
        image.src = URL.createObjectURL(answer.blob());
      }
    };
    return element("details", {ontoggle: (event) => opened(event).catch(refused)},
                   element("summary", {}, "The mask"), image);
  };

  /* Parameters that are long are told of one job at a time. */
  const whole = async ({id}) => daemon.get_job({id});
  const wav = (entry) => daemon.job_audio({id: entry.id, format: "wav"}).then((answer) => answer.blob());
  const done = (entry) => [
    player(entry), element("p", {class: "facts"}, facts(entry.job)), picture(entry),
    element("div", {class: "row"},
            button(entry, "Download WAV", async (one) => save(await wav(one), nameOf(one, "wav"))),
            button(entry, "Download mask", async (one) =>
              save((await daemon.job_mask_png({id: one.id})).blob(), nameOf(one, "mask.png"))),
            button(entry, "Use as input", async (one) =>
              use(new File([await wav(one)], nameOf(one, "wav"), {type: "audio/wav"})), "It is the clip now."),
            button(entry, "Copy as curl", async (one) =>
              copy(curlOf(await whole(one), one.clip, location.origin, Boolean(daemon.key))), "Copied."),
            button(entry, "Copy params", async (one) =>
              copy(JSON.stringify(repeatable(await whole(one)), null, 2)), "Copied."),
            button(entry, "Delete", (one) => jobs().forget(one.id), "Deleted.")),
  ];

  const broken = (entry) => [
    entry.job.problem && element("p", {class: "error"}, `${entry.job.problem.title}: ${entry.job.problem.detail}`),
    element("div", {class: "row"}, button(entry, "Delete", (one) => jobs().forget(one.id), "Deleted."))];

  const makeCard = (entry) => {
    const title = element("h3"), note = element("p", {class: "facts"}), rest = element("div");
    const bar = element("progress", {max: 1, "aria-label": "Progress"});
    const going = element("div", {class: "row"}, bar,
                          button(entry, "Cancel", (one) => jobs().cancel(one.id), "It will be cancelled."));
    const root = element("li", {class: "card"}, title, note, going, rest);
    return {entry, title, note, bar, going, rest, root, shown: ""};
  };

  const update = (card, entry) => {
    const {job, clip} = entry, before = card.entry.job?.state;
    card.entry = entry;
    card.title.textContent = clip;
    card.note.textContent = job ? [`seed ${job.seed}`, job.params?.preset ?? "own mask", stateText(job)].join(" · ")
      : "Asking the daemon …";
    card.going.hidden = isFinished(entry);
    card.bar.value = job?.progress ?? 0;
    if (isFinished(entry) && job.links && card.shown !== job.state) {
      card.shown = job.state;
      card.rest.replaceChildren(...(job.state === "done" ? done : broken)(entry).filter(Boolean));
      if (before && before !== job.state) {
        announce(`The variation of ${clip} with seed ${job.seed}: ${stateText(job)}.`);
      }
    }
  };

  return (list) => {
    const root = byId("list"), ids = new Set(list.map((entry) => entry.id));
    byId("none").hidden = list.length > 0;
    for (const [id, card] of cards) {
      if (!ids.has(id)) {
        card.root.remove();
        cards.delete(id);
      }
    }
    list.forEach((entry, i) => {
      if (!cards.has(entry.id)) {
        cards.set(entry.id, makeCard(entry));
      }
      const card = cards.get(entry.id);
      update(card, entry);
      if (root.children[i] !== card.root) {
        root.insertBefore(card.root, root.children[i] ?? null);
      }
    });
  };
}
