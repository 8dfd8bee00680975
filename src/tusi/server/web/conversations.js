// What a conversation is before anything is in it, what it is when it is open, and what it is called.

import { newId } from "./ids.js";
import { Tree } from "./tree.js";

const TITLE_LENGTH = 60;

export function emptyConversation(id) {
  const now = Date.now();
  return { id, title: "", isNamed: false, created: now, updated: now, selected: {}, draftMedia: [], deleted: false };
}

/** A conversation with its messages as a tree and its media by their id. */
export function opened(conversation, nodes, media) {
  const byId = new Map(media.map((record) => [record.id, record]));
  return { conversation, tree: new Tree(nodes, conversation.selected), media: byId };
}

/** A title from the first message: its first line, or the name of what came with it. */
export function titleOf(text, medium) {
  const line = text.trim().split("\n")[0] || medium?.name || "";
  const characters = [...line];
  return characters.length > TITLE_LENGTH ? `${characters.slice(0, TITLE_LENGTH - 1).join("")}…` : line;
}

/** What tells this tab from others. */
export function tab() {
  try {
    sessionStorage.tusiTab ??= newId();
    return sessionStorage.tusiTab;
  } catch {
    return "only";
  }
}
