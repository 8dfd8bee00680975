// Where a message has several versions (it was changed, or answered again): which one is shown, and the way to the others.

import { h, iconButton } from "./dom.js";
import { t } from "./i18n.js";

/** versions: ids, oldest first. null if there is one only. */
export function versionSwitch(chat, id, versions) {
  if (versions.length < 2) return null;
  const at = versions.indexOf(id);
  const go = (step) => () => chat.select(versions[at + step]).catch(console.error);
  return h(
    "div",
    { class: "versions" },
    iconButton("left", t("previous"), go(-1), { disabled: at === 0 }),
    h("span", {}, t("versionOf", { n: at + 1, count: versions.length })),
    iconButton("right", t("next"), go(1), { disabled: at === versions.length - 1 }),
  );
}
