/*
 * The clip: chosen, dropped, recorded, the example, or a variation that becomes the input of the next. It is decoded here to be
 * drawn and measured; what is sent is the file itself, or a WAV of it where the daemon could not read the file.
 */
import {byId} from "./dom.js";
import {isReadable, lengthText, wavOf} from "./sound.js";

/* Music, not speech: nothing of what browsers do to telephone calls. */
const MICROPHONE = {audio: {echoCancellation: false, noiseSuppression: false, autoGainControl: false}};

/** A decoded clip at the model's rate, or null where this browser cannot read it. */
async function decode(blob, rate) {
  try {
    return await new OfflineAudioContext(1, 1, rate).decodeAudioData(await blob.arrayBuffer());
  } catch {
    return null;
  }
}

/** {file, name, samples, seconds}; of what this browser cannot read, samples and seconds are null. */
async function open(file, rate) {
  const sound = await decode(file, rate);
  const clip = {file, name: file.name, samples: sound?.getChannelData(0) ?? null, seconds: sound?.duration ?? null};
  if (sound && !isReadable(file.name)) {
    const channels = Array.from({length: sound.numberOfChannels}, (_, i) => sound.getChannelData(i));
    clip.name = `${file.name.replace(/\.[^.]*$/, "")}.wav`;
    clip.file = new File([wavOf(channels, sound.sampleRate)], clip.name, {type: "audio/wav"});
  }
  return clip;
}

/** The eight seconds that are served with the page. */
async function example() {
  const answer = await fetch("/web/demo.flac");
  if (!answer.ok) {
    throw new Error(`the daemon answers ${answer.status}`);
  }
  return new File([await answer.blob()], "demo.flac", {type: "audio/flac"});
}

/* A button that records, and again that stops. */
function makeRecorder(button, done, failed) {
  let recorder = null, timer = null;
  const stop = () => {
    clearInterval(timer);
    recorder.stream.getTracks().forEach((track) => track.stop());
    recorder = null;
    button.textContent = "Record";
  };
  const start = async () => {
    const chunks = [], started = Date.now();
    const made = new MediaRecorder(await navigator.mediaDevices.getUserMedia(MICROPHONE));
    recorder = made;
    made.addEventListener("dataavailable", (event) => chunks.push(event.data));
    made.addEventListener("stop", () => {
      const clock = new Date().toTimeString().slice(0, 8).replaceAll(":", "-");
      stop();
      done(new File(chunks, `recording-${clock}.webm`, {type: made.mimeType}));
    });
    made.start();
    timer = setInterval(() => (button.textContent = `Stop (${lengthText((Date.now() - started) / 1000)})`), 100);
  };
  button.hidden = !(window.MediaRecorder && navigator.mediaDevices);
  button.addEventListener("click", () => recorder ? recorder.stop() : start().catch(failed));
}

/** `changed` gets the clip each time there is another. -> {use(file)} */
export function makeClip(rate, changed) {
  const drop = byId("drop"), player = byId("clip-player"), name = byId("clip-name");
  let turn = 0;
  const use = async (file) => {
    const mine = ++turn;
    name.textContent = `Reading ${file.name} …`;
    const clip = await open(file, rate);
    if (mine !== turn) {
      return;
    }
    URL.revokeObjectURL(player.src);
    player.src = URL.createObjectURL(clip.file);
    player.hidden = !clip.samples;
    name.textContent = clip.samples ? `${clip.name}, ${lengthText(clip.seconds)}`
      : `${clip.name} (this browser cannot read it; the daemon may)`;
    changed(clip);
  };
  const chosen = () => byId("file").files[0] && use(byId("file").files[0]);
  byId("file").addEventListener("change", chosen);
  chosen(); // before this was here, or before the page was loaded again
  for (const [event, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
    document.body.addEventListener(event, (happened) => {
      happened.preventDefault();
      drop.classList.toggle("over", over);
      if (event === "drop" && happened.dataTransfer.files[0]) {
        use(happened.dataTransfer.files[0]);
      }
    });
  }
  byId("example").addEventListener("click", () => example().then(use).catch((error) => {
    name.textContent = `The example cannot be had: ${error.message}`;
  }));
  makeRecorder(byId("record"), use, (error) => (name.textContent = `There is no recording: ${error.message}`));
  return {use};
}
