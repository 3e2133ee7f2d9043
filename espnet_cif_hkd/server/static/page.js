"use strict";

const $ = (id) => document.getElementById(id);
const HEIGHT = 220, MIDDLE = 100, PER_SECOND = 90;
const FILES = [["srt", "application/x-subrip"], ["vtt", "text/vtt"], ["txt", "text/plain"],
  ["tsv", "text/tab-separated-values"], ["textgrid", "text/plain"]];
let urls = [], recorder = null, request = null, words = [];

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").className = isError ? "error" : "";
}

function clock(seconds) {
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds - 60 * minutes).toFixed(2).padStart(5, "0")}`;
}

// A color between clear (sure) and red (unsure).
function shade(confidence) {
  return `rgba(220, 38, 38, ${(0.75 * (1 - confidence)).toFixed(3)})`;
}

function url(blob) {
  urls.push(URL.createObjectURL(blob));
  return urls[urls.length - 1];
}

async function decode(blob) {
  const context = new AudioContext();
  try {
    return await context.decodeAudioData(await blob.arrayBuffer());
  } finally {
    context.close();
  }
}

function mono(audio) {
  const mean = new Float32Array(audio.length);
  for (let c = 0; c < audio.numberOfChannels; c++) {
    audio.getChannelData(c).forEach((x, i) => { mean[i] += x / audio.numberOfChannels; });
  }
  return mean;
}

// 16 bits, one channel.
function wav(audio) {
  const samples = mono(audio), view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, word) => [...word].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * samples.length, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, audio.sampleRate, true); view.setUint32(28, 2 * audio.sampleRate, true);
  view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, 2 * samples.length, true);
  samples.forEach((x, i) => {
    view.setInt16(44 + 2 * i, Math.round(32767 * Math.max(-1, Math.min(1, x))), true);
  });
  return new Blob([view], { type: "audio/wav" });
}

async function send(blob, name, signal) {
  const form = new FormData();
  form.append("file", blob, name);
  form.append("model", $("model").value);
  form.append("response_format", "verbose_json");
  for (const one of ["word", "segment"]) form.append("timestamp_granularities[]", one);
  for (const one of ["alphas", ...FILES.map(([kind]) => kind)]) form.append("include[]", one);
  const answer = await fetch("/v1/audio/transcriptions", { method: "POST", body: form, signal });
  const content = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(content.error.message), content.error);
  return content;
}

async function recognise(blob, name) {
  if (request) request.abort();
  const mine = request = new AbortController();
  $("result").hidden = true;
  say(`Recognising ${name} …`);
  try {
    const heard = decode(blob).catch(() => null);
    let found;
    try {
      found = await send(blob, name, mine.signal);
    } catch (error) {
      // The browser reads formats that the server does not.
      const audio = error.code === "unknown_format" ? await heard : null;
      if (!audio) throw error;
      found = await send(wav(audio), `${name}.wav`, mine.signal);
    }
    const audio = await heard;
    if (mine === request) show(found, blob, name, audio);
  } catch (error) {
    if (mine === request) say(error.message, true);
  }
}

function show(found, blob, name, audio) {
  urls.forEach((one) => URL.revokeObjectURL(one));
  urls = [];
  $("player").src = url(blob);
  $("result").hidden = false;
  say(found.words.length ? `${name}: ${found.duration.toFixed(2)} s` : `${name}: no speech found`);
  showWords(found);
  draw(found, audio);
  const stem = name.replace(/\.[^.]*$/, "");
  $("downloads").replaceChildren("Download: ", ...FILES.map(([kind, type]) =>
    link(found.outputs[kind], type, `${stem}.${kind === "textgrid" ? "TextGrid" : kind}`)),
  link(JSON.stringify(found, null, 1), "application/json", `${stem}.json`));
}

function link(text, type, file) {
  const a = document.createElement("a");
  a.href = url(new Blob([text], { type }));
  a.download = file;
  a.textContent = file.split(".").pop();
  return a;
}

function showWords(found) {
  const flags = found.flags.filter((one) => one.kind === "missing");
  words = [];
  $("words").replaceChildren();
  const warn = (until) => {
    while (flags.length && flags[0].start < until) {
      const one = flags.shift(), mark = document.createElement("span");
      mark.className = "flag";
      mark.textContent = "⚠ ";
      mark.title = `a token may be missing from ${clock(one.start)} to ${clock(one.end)}`;
      $("words").append(mark);
    }
  };
  for (const one of found.words) {
    warn(one.end);
    const span = document.createElement("span"), times = document.createElement("small");
    span.className = "word";
    span.textContent = one.word;
    times.textContent = `${clock(one.start)}–${clock(one.end)}`;
    if (one.confidence === null) span.classList.add("unknown");
    else span.style.backgroundColor = shade(one.confidence);
    span.title = one.confidence === null ? "confidence unknown"
      : `confidence ${(100 * one.confidence).toFixed(0)} %`;
    span.append(times);
    span.onclick = () => {
      $("player").currentTime = one.start;
      $("player").play();
    };
    $("words").append(span);
    words.push({ span, start: one.start, end: one.end });
  }
  warn(Infinity);
}

function draw(found, audio) {
  const seconds = Math.max(found.duration, 0.01), canvas = $("picture");
  const room = canvas.parentElement.clientWidth;
  const width = Math.round(Math.min(Math.max(room, seconds * PER_SECOND), 16000));
  const scale = width * devicePixelRatio > 16000 ? 1 : devicePixelRatio;
  canvas.width = width * scale;
  canvas.height = HEIGHT * scale;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${HEIGHT}px`;
  const pen = canvas.getContext("2d"), x = (t) => (t / seconds) * width;
  pen.scale(scale, scale);
  pen.font = "12px system-ui, sans-serif";
  if (audio) drawWave(pen, mono(audio), width);
  if (found.alphas) drawAlphas(pen, found.alphas, x);
  for (const one of found.words) {
    pen.fillStyle = "#f59e0b22";
    pen.fillRect(x(one.start), 20, x(one.end) - x(one.start), HEIGHT - 40);
    pen.fillStyle = "#111827";
    pen.fillText(one.word, x(one.start) + 1, 14);
  }
  pen.fillStyle = "#6b7280";
  const step = [0.5, 1, 2, 5, 10, 30, 60, 300].find((s) => x(s) >= 50) || 600;
  for (let t = 0; t <= seconds; t += step) {
    pen.fillRect(x(t), HEIGHT - 18, 1, 5);
    pen.fillText(`${t} s`, x(t) + 3, HEIGHT - 5);
  }
}

function drawWave(pen, samples, width) {
  pen.fillStyle = "#94a3b8";
  for (let at = 0; at < width; at++) {
    const from = Math.floor(at / width * samples.length);
    const to = Math.floor((at + 1) / width * samples.length);
    let top = 0;
    for (let i = from; i < to; i++) top = Math.max(top, Math.abs(samples[i]));
    pen.fillRect(at, 60 - 38 * top, 1, Math.max(1, 76 * top));
  }
}

function drawAlphas(pen, curve, x) {
  const bottom = HEIGHT - 22, tall = bottom - MIDDLE - 10;
  const most = Math.max(1, ...curve.alpha);
  pen.fillStyle = "#2563eb55";
  pen.strokeStyle = "#2563eb";
  pen.beginPath();
  pen.moveTo(x(curve.edges[0]), bottom);
  curve.alpha.forEach((value, i) => {
    const y = bottom - tall * value / most;
    pen.lineTo(x(curve.edges[i]), y);
    pen.lineTo(x(curve.edges[i + 1]), y);
  });
  pen.lineTo(x(curve.edges[curve.edges.length - 1]), bottom);
  pen.fill();
  pen.stroke();
  pen.fillStyle = "#dc2626";
  for (const t of curve.firings) pen.fillRect(x(t) - 0.5, MIDDLE, 1.5, bottom - MIDDLE);
}

async function record() {
  if (recorder) {
    recorder.stop();
    return;
  }
  try {
    const sound = await navigator.mediaDevices.getUserMedia({ audio: true });
    const parts = [];
    recorder = new MediaRecorder(sound);
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.onstop = async () => {
      sound.getTracks().forEach((one) => one.stop());
      recorder = null;
      $("record").textContent = "Record";
      $("record").setAttribute("aria-pressed", "false");
      try {
        recognise(wav(await decode(new Blob(parts))), "recording.wav");
      } catch (error) {
        say("The recording is empty: record for longer.", true);
      }
    };
    recorder.start();
    $("record").textContent = "Stop";
    $("record").setAttribute("aria-pressed", "true");
    say("Recording …");
  } catch (error) {
    recorder = null;
    say(navigator.mediaDevices ? `No microphone: ${error.message}`
      : "Browsers allow recording on http://localhost and on https:// only.", true);
  }
}

$("choose").onclick = () => $("file").click();
$("record").onclick = record;
$("file").onchange = () => {
  const [file] = $("file").files;
  if (file) recognise(file, file.name);
  $("file").value = "";
};
for (const kind of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    const file = event.dataTransfer.files[0];
    if (kind === "drop" && file) recognise(file, file.name);
  });
}
$("player").ontimeupdate = () => {
  const now = $("player").currentTime;
  for (const one of words) one.span.classList.toggle("now", one.start <= now && now < one.end);
};
$("unsure").style.backgroundColor = shade(0);
fetch("/v1/models").then((answer) => answer.json()).then((found) => {
  $("model").replaceChildren(...found.data.map((one) => new Option(one.id)));
}).catch((error) => say(error.message, true));
