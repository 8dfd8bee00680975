// A conversation as a file: JSON with everything in it (all branches, pictures and crops), which can be read back; or the
// branch that is shown as Markdown, for people.

import { download } from "./dom.js";
import { t } from "./i18n.js";
import { newId } from "./ids.js";
import { dataUrl } from "./media.js";

const FORMAT = "tusi-conversation";
const VERSION = 1;

export async function exportJson({ conversation, tree, media }) {
  const records = await Promise.all(
    [...media.values()].map(async ({ blob, ...record }) => ({ ...record, url: await dataUrl(blob) })),
  );
  const body = { format: FORMAT, version: VERSION, conversation, nodes: tree.nodes, media: records };
  download(new Blob([JSON.stringify(body, null, 1)], { type: "application/json" }), `${fileName(conversation)}.json`);
}

export function exportMarkdown({ conversation, tree, media }) {
  const text = toMarkdown(conversation.title, tree.path(), (id) => media.get(id));
  download(new Blob([text], { type: "text/markdown" }), `${fileName(conversation)}.md`);
}

/** The messages of a path as Markdown. Pictures are named, not included. */
export function toMarkdown(title, path, record) {
  const parts = [`# ${title || t("untitled")}`];
  for (const node of path) {
    parts.push(`## ${node.role === "user" ? t("mdYou") : node.model || t("model")}`);
    parts.push(...(node.role === "user" ? fromUser(node, record) : node.turns.flatMap(fromTurn)));
  }
  return `${parts.filter(Boolean).join("\n\n")}\n`;
}

/** {conversation, nodes, media} of an exported file, under new ids. Throws if it is something else. */
export function readExport(text) {
  const { format, version, conversation, nodes, media } = JSON.parse(text);
  if (format !== FORMAT || version !== VERSION) throw new Error("not a conversation exported here");
  const ids = new Map([conversation, ...nodes, ...media].map(({ id }) => [String(id), newId()]));
  const renamed = (id) => ids.get(String(id)) ?? null;
  const id = renamed(conversation.id);
  const selected = Object.entries(conversation.selected ?? {}).map(([parent, child]) => [parent ? renamed(parent) : "", renamed(child)]);
  return {
    conversation: {
      id, title: String(conversation.title ?? ""), isNamed: true, created: Number(conversation.created) || Date.now(),
      updated: Date.now(), selected: Object.fromEntries(selected), draftMedia: [], deleted: false,
    },
    nodes: nodes.map((node) => readNode(node, id, renamed)),
    media: media.map(({ url, ...record }) => ({ ...record, id: renamed(record.id), conversation: id, blob: toBlob(url) })),
  };
}

function readNode(node, conversation, renamed) {
  const common = { ...node, id: renamed(node.id), parent: node.parent === null ? null : renamed(node.parent), conversation };
  if (node.role === "user") return { ...common, text: String(node.text), media: node.media.map(renamed).filter(Boolean) };
  if (node.role !== "assistant") throw new Error(`no message is said by ${node.role}`);
  const turns = node.turns.map((turn) => ({
    ...turn,
    reasoning: String(turn.reasoning),
    content: String(turn.content),
    calls: turn.calls.map((call) => ({
      ...call,
      result: call.result?.map((part) => (part.type === "media" ? { ...part, media: renamed(part.media) } : part)) ?? null,
    })),
  }));
  return { ...common, turns };
}

function toBlob(url) {
  const match = /^data:((?:image|video)\/[\w.+-]+);base64,/.exec(url);
  if (match === null) throw new Error("a medium is not a data URL");
  const bytes = Uint8Array.from(atob(url.slice(match[0].length)), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: match[1] });
}

function fromUser(node, record) {
  return [...node.media.map((id) => `*[${record(id)?.name || id}]*`), node.text];
}

function fromTurn(turn) {
  const calls = turn.calls.flatMap((call) => {
    const results = (call.result ?? []).map((part) => (part.type === "text" ? part.text : `*[${t("crop")}]*`)).join("\n\n");
    return ["```json", `${call.name} ${call.arguments}`, "```", results && `> ${t("mdResult")}: ${results.replace(/\n/g, "\n> ")}`].filter(Boolean).join("\n");
  });
  const thought = turn.reasoning && `<details><summary>${t("mdThought")}</summary>\n\n${turn.reasoning}\n\n</details>`;
  return [thought, turn.content, ...calls];
}

function fileName({ title, created }) {
  const date = new Date(created).toISOString().slice(0, 10);
  const words = title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 40);
  return `tusi-${date}${words ? `-${words}` : ""}`;
}
