// A picture over the whole window, with its marks. Esc closes it, the arrows go to the other pictures.

import { h, iconButton } from "./dom.js";
import { t } from "./i18n.js";
import { legend, stage } from "./picture.js";

/** pictures: [{record, marks, alt, title}]; at: which one to show first. */
export function openViewer(pictures, at = 0) {
  let shown = at;
  const dialog = h("dialog", { class: "viewer" });
  const show = () => {
    const { record, marks, alt, title } = pictures[shown];
    const go = (step) => () => {
      shown = (shown + step + pictures.length) % pictures.length;
      show();
    };
    const several = pictures.length > 1;
    dialog.setAttribute("aria-label", title);
    dialog.replaceChildren(
      h(
        "div",
        { class: "viewer-bar" },
        h("span", { class: "viewer-title" }, title, record.width ? h("small", {}, ` ${record.width} × ${record.height}`) : null),
        several ? iconButton("left", t("previous"), go(-1)) : null,
        several ? iconButton("right", t("next"), go(1)) : null,
        iconButton("close", t("close"), () => dialog.close()),
      ),
      h("div", { class: "viewer-stage" }, stage(record, { alt, marks })),
      marks.length ? legend(marks) : null,
    );
  };
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      shown = (shown + (event.key === "ArrowLeft" ? -1 : 1) + pictures.length) % pictures.length;
      show();
    }
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.matches(".viewer-stage")) dialog.close();
  });
  dialog.addEventListener("close", () => dialog.remove());
  show();
  document.body.append(dialog);
  dialog.showModal();
}
