// The dialogs: settings, and the API key.

import { h, iconButton } from "./dom.js";
import { LANGUAGES, t } from "./i18n.js";
import { apiKey, change, setApiKey, settings } from "./settings.js";

/** Shows the settings. Every change holds at once. */
export function openSettings(chat, onKey) {
  const facts = chat.description?.facts ?? {};
  const models = chat.description?.models ?? [];
  const dialog = h("dialog", { class: "sheet", "aria-labelledby": "settings-title" });
  dialog.append(
    h("header", {}, h("h2", { id: "settings-title" }, t("settings")), iconButton("close", t("close"), () => dialog.close())),
    h(
      "div",
      { class: "sheet-body" },
      models.length > 1 ? field(t("modelSetting"), select(models.map(({ id }) => [id, id]), chat.model(), (model) => change({ model }))) : null,
      field(t("system"), area("system"), t("systemHint")),
      temperature(),
      thinking(facts.can_switch_thinking),
      field(t("maxTokens"), count("maxTokens", ""), t("maxTokensHint")),
      field(t("language"), select([["", t("languageAuto")], ...Object.entries(LANGUAGES)], settings().language ?? "", (value) => {
        change({ language: value || null });
        dialog.close();
        openSettings(chat, onKey);
      })),
      field(t("theme"), select([["auto", t("themeAuto")], ["light", t("themeLight")], ["dark", t("themeDark")]], settings().theme, (theme) => change({ theme }))),
      apiKey() ? h("button", { type: "button", class: "button", on: { click: () => (dialog.close(), onKey()) } }, t("keyChange")) : null,
      keys(),
    ),
  );
  show(dialog);
}

/** Asks for the API key. onDone: it was given. */
export function openKeyDialog(onDone, wasWrong = false) {
  if (document.querySelector("dialog.key")) return;
  const input = h("input", { type: "password", name: "key", autocomplete: "off", required: true, spellcheck: "false" });
  input.value = apiKey();
  const remember = h("input", { type: "checkbox", name: "remember" });
  const form = h(
    "form",
    { method: "dialog" },
    h("header", {}, h("h2", { id: "key-title" }, t("keyTitle"))),
    h(
      "div",
      { class: "sheet-body" },
      h("p", {}, t("keyText")),
      wasWrong ? h("p", { class: "is-error", role: "alert" }, t("keyWrong")) : null,
      field(t("keyTitle"), input),
      h("label", { class: "check" }, remember, t("keyRemember")),
      h("button", { type: "submit", class: "button is-primary" }, t("keySave")),
    ),
  );
  const dialog = h("dialog", { class: "sheet key", "aria-labelledby": "key-title" }, form);
  form.addEventListener("submit", () => {
    setApiKey(input.value.trim(), remember.checked);
    onDone();
  });
  show(dialog);
}

function show(dialog) {
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
}

let count_ = 0;

function field(label, control, hint = null) {
  count_ += 1;
  control.id ||= `field-${count_}`;
  const note = hint ? h("p", { class: "hint", id: `hint-${count_}` }, hint) : null;
  if (note) control.setAttribute("aria-describedby", note.id);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, note);
}

function select(options, chosen, onChoose) {
  const element = h("select", {}, options.map(([value, label]) => h("option", { value, selected: value === chosen }, label)));
  element.addEventListener("change", () => onChoose(element.value));
  return element;
}

function area(name) {
  const element = h("textarea", { rows: "4" });
  element.value = settings()[name];
  element.addEventListener("input", () => change({ [name]: element.value }));
  return element;
}

function count(name, placeholder) {
  const element = h("input", { type: "number", min: "1", step: "1", inputmode: "numeric", placeholder });
  element.value = settings()[name] ?? "";
  element.addEventListener("input", () => {
    if (element.validity.valid) change({ [name]: element.value === "" ? null : Number(element.value) });
  });
  return element;
}

function temperature() {
  const range = h("input", { type: "range", min: "0", max: "1.5", step: "0.05", "aria-label": t("temperature") });
  const own = h("input", { type: "checkbox" });
  const shown = h("output", {});
  const update = () => {
    const value = settings().temperature;
    own.checked = value === null;
    range.disabled = value === null;
    range.value = String(value ?? 0.6);
    shown.textContent = value === null ? "" : value.toFixed(2);
  };
  range.addEventListener("input", () => {
    change({ temperature: Number(range.value) });
    update();
  });
  own.addEventListener("change", () => {
    change({ temperature: own.checked ? null : Number(range.value) });
    update();
  });
  update();
  return h(
    "div",
    { class: "field" },
    h("div", { class: "field-label" }, t("temperature"), shown),
    h("label", { class: "check" }, own, t("ownValue")),
    range,
    h("p", { class: "hint" }, t("temperatureHint")),
  );
}

// canSwitch: whether the model's template has a switch; null if the server does not know.
function thinking(canSwitch) {
  const isFixed = canSwitch === false;
  const choices = [["on", t("thinkingOn")], ["budget", t("thinkingBudget")], ...(isFixed ? [] : [["off", t("thinkingOff")]])];
  const budget = count("budget", "2048");
  const chosen = isFixed && settings().thinking === "off" ? "on" : settings().thinking;
  const row = field(t("budget"), budget);
  row.hidden = chosen !== "budget";
  const radios = choices.map(([value, label]) => {
    const input = h("input", { type: "radio", name: "thinking", value, checked: value === chosen });
    input.addEventListener("change", () => {
      change({ thinking: value });
      row.hidden = value !== "budget";
    });
    return h("label", { class: "choice" }, input, h("span", {}, label));
  });
  return h(
    "fieldset",
    { class: "field" },
    h("legend", {}, t("thinkingSetting")),
    h("div", { class: "choices" }, radios),
    row,
    isFixed ? h("p", { class: "hint" }, t("thinkingFixed")) : null,
  );
}

function keys() {
  const rows = [["Enter", "keySend"], ["Shift + Enter", "keyLine"], ["Esc", "keyStop"], ["↑", "keyEdit"], ["Ctrl + Shift + O", "keyNew"], ["/", "keyFocus"]];
  return h("details", { class: "keys" }, h("summary", {}, t("keys")), h("dl", {}, rows.map(([key, word]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, t(word))])));
}
