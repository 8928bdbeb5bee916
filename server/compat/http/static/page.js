// Keeps the page current: what is loaded, how the server is, and code to copy for what is in the form.

import { byId, made, say, short, spark, time } from "./dom.js";
import { Readings } from "./metrics.js";
import { Trouble, ask, health, read } from "./server.js";
import { curl, grpcurl, python } from "./snippets.js";
import { asked, offer, send, suit } from "./tryout.js";

const EVERY_MS = 2000;
const LANGUAGES = { curl: (request) => curl(request, document.baseURI), grpcurl: (request) => grpcurl(request, grpc()), python: (request) => python(request, grpc()) };

const readings = new Readings();
let about = null;
let language = "curl";
let goneSince = null;

const grpc = () => ({ host: location.hostname, port: about?.grpc_port ?? 50051, secure: Boolean(about?.tls) });

// --- How the server is ---

function state(name, words, trouble = "") {
  byId("state").dataset.state = name;
  if (byId("state").textContent !== words) byId("state").textContent = words;
  byId("trouble").dataset.state = name;
  say(byId("trouble"), trouble);
}

async function look() {
  try {
    if (!about) await load();
    readings.add(performance.now() / 1000, await read("metrics"));
    show(readings.summary());
    await health();
    goneSince = null;
    const { refused, sick } = readings.summary();
    if (refused > 0) state("busy", "Overloaded", `The server is full: it refused ${short(refused)} request${refused === 1 ? "" : "s"} in the last half minute. Clients that wait as they are told get through.`);
    else state("serving", "Serving");
    if (sick.length) state("busy", "Not well", `The last run of ${sick.join(", ")} failed; the server tries it again by itself.`);
  } catch (error) {
    if (!(error instanceof Trouble)) throw error;
    if (!error.gone) return state("busy", "Not ready", error.message);
    goneSince ??= new Date();
    about = null;
    state("gone", "Not answering", `The server has not answered since ${goneSince.toLocaleTimeString()}. It may have been stopped, or the network is down. This page keeps asking.`);
  }
}

async function watch() {
  if (!document.hidden) await look().catch((error) => state("busy", "Unclear", `This page cannot read what the server said: ${error.message}`));
  setTimeout(watch, EVERY_MS);
}

// --- Live numbers ---

function tile(id, value, more, line, most) {
  const dd = byId(id);
  dd.replaceChildren(...(value === null ? ["–"] : value));
  const below = byId(`${id}-more`);
  below.textContent = more;
  const parent = dd.parentElement;
  parent.querySelector("svg")?.remove();
  parent.append(spark(line, most));
}

const unit = (text) => made("small", { text: ` ${text}` });

function show(now) {
  tile("queue", [short(now.waiting), unit("waiting")], `${short(now.running)} running, ${short(100 * now.filled)} % full`, readings.history("waiting"));
  tile("rate", now.rows === null ? null : [short(now.rows), unit("texts/s")], now.requests === null ? "" : `${short(now.requests)} requests/s`, readings.history("rows"));
  tile("latency", now.median === null ? null : [time(now.median), unit("median")], now.slow === null ? "no requests" : `${time(now.slow)} for the slowest 5\u00a0%`, readings.history("median"));
  tile("fill", now.fill === null ? null : [short(100 * now.fill), unit("% text")], now.rowsPerBatch === null ? "no batches" : `${short(now.rowsPerBatch)} texts a batch`, readings.history("fill"), 1);
}

// --- What is loaded ---

async function load() {
  ({ answer: about } = await ask("ui/about"));
  byId("version").textContent = about.version;
  byId("cards").replaceChildren(...about.models.map(card));
  offer(about.models);
  code();
}

function card(model) {
  const rows = [
    ["Checkpoint", model.source || "unknown"],
    ["Runs as", `${model.variant}, ${model.provider}, ${model.workers} worker${model.workers === 1 ? "" : "s"} of ${model.threads} thread${model.threads === 1 ? "" : "s"}`],
    ["Reads up to", `${model.max_length} tokens`],
    model.labels.length > 1 && ["Labels", model.labels.join(", ")],
    model.dimensions && ["Vectors", `${model.dimensions} numbers${model.similarity ? `, compared by ${model.similarity}` : ""}`],
    ["Parity", parity(model.parity)],
  ].filter(Boolean);
  const body = made("tbody", {}, ...rows.map(([head, cell]) => {
    const th = made("th", { text: head });
    th.scope = "row";
    return made("tr", {}, th, made("td", {}, ...[cell].flat()));
  }));
  return made("article", { name: "card" }, made("h3", { text: model.name }), made("p", { name: "kind hint", text: model.kind }), made("table", {}, body));
}

function parity(found) {
  if (!found) return "not checked (exported without)";
  const verdict = made("span", { name: found.passed ? "passed" : "failed", text: found.passed ? "passed" : "not passed" });
  const limit = (value) => (value ? ` (limit ${value})` : "");
  const numbers = `: on ${found.samples} inputs it differs from the original by at most ${short(found.max_abs_diff)}${limit(found.max_abs_diff_limit)}, ${short(found.mean_abs_diff)} on average; rank correlation ${found.spearman.toFixed(4)}${limit(found.spearman_limit)}`;
  return [verdict, numbers];
}

// --- Code to copy ---

function code() {
  byId("code").textContent = LANGUAGES[language](asked());
  byId("copied").textContent = "";
}

function choose(tab) {
  language = tab.id.replace("tab-", "");
  for (const each of document.querySelectorAll("[role=tab]")) {
    each.setAttribute("aria-selected", String(each === tab));
    each.tabIndex = each === tab ? 0 : -1;
  }
  byId("code").setAttribute("aria-labelledby", tab.id);
  code();
}

function step(event) {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const at = tabs.indexOf(event.target);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: -1 }[event.key];
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  const tab = tabs.at(to % tabs.length);
  choose(tab);
  tab.focus();
}

async function copy() {
  try {
    await navigator.clipboard.writeText(byId("code").textContent);
    byId("copied").textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren(byId("code"));
    byId("copied").textContent = "Selected: press Ctrl+C. Browsers copy by themselves only over HTTPS or on localhost.";
  }
}

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
byId("form").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !byId("send").disabled) {
    event.preventDefault();
    send();
  }
});
byId("form").addEventListener("input", code);
byId("model").addEventListener("change", () => {
  suit();
  code();
});
for (const tab of document.querySelectorAll("[role=tab]")) tab.addEventListener("click", () => choose(tab));
document.querySelector("[role=tablist]").addEventListener("keydown", step);
byId("copy").addEventListener("click", copy);
document.addEventListener("visibilitychange", () => document.hidden || look());
watch();
