// The labeller's front end: it moves on with every key and tells the kernel, which saves and answers.
// An answer is a class number, or one of these, as in labeller.py:
const NONE = -1, UNSURE = -2, SKIP = -3;
const ARROWS = { ArrowLeft: "←", ArrowRight: "→" };

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export default { render({ model, el }) {
  const classes = model.get("classes"), keys = model.get("shortcuts"), captions = model.get("captions");
  const pictures = model.get("pictures"), count = pictures.length;
  let answers = [...model.get("answers")], position = Math.max(0, answers.indexOf(NONE)), sheet = model.get("sheet");
  let number = 0; // of the last message to the kernel
  const unsaved = new Map(); // number -> image
  const past = []; // what undo takes back: {image, before}, the last answer at the end
  let said = "", trouble = "", suggestion = "";
  const without = { [NONE]: "no answer", [UNSURE]: "not sure", [SKIP]: "skipped" }; // a class
  const words = (answer) => without[answer] ?? classes[answer];
  const hint = "Labeller: press the key of a class, or use the buttons";
  const root = element("div", { class: "lalib-labeller", role: "group", tabindex: "0", "aria-label": hint });
  root.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes the keys for its commands
  const stage = element("div");
  const bar = element("progress", { max: count, "aria-label": "images answered" });
  const status = element("p", { class: "lalib-status" });
  const live = element("p", { class: "lalib-said", role: "status", "aria-live": "polite" });
  const alert = element("p", { class: "lalib-trouble", role: "alert" });

  function button(text, key, action, name) {
    const shortcut = key ? [element("kbd", {}, ARROWS[key] ?? key), " "] : [];
    const made = element("button", { type: "button", "aria-label": name ?? text }, ...shortcut, text);
    if (key) made.setAttribute("aria-keyshortcuts", key);
    made.addEventListener("click", () => { action(); root.focus(); });
    return made;
  }

  const choices = classes.map((name, c) => button(name, keys[c], () => answer(c), `label as ${name}`));
  const tools = [ // text, key, what it does, name
    ["not sure", "u", () => answer(UNSURE)],
    ["skip", "s", () => answer(SKIP), "skip, show again later"],
    ["undo", "z", undo],
    ["previous", "ArrowLeft", () => go(position - 1)],
    ["next", "ArrowRight", () => go(position + 1)],
    ["sheet of 25", "v", () => { sheet = sheet > 1 ? 1 : 25; draw(); }, "show one image or a sheet of 25"],
  ];
  if (model.get("suggests")) tools.push(["what does the model say?", "m", () => tell({ kind: "suggest", image: position })]);
  const panel = element("div", { class: "lalib-panel" },
    element("div", { class: "lalib-classes", role: "group", "aria-label": "classes" }, ...choices),
    element("div", { class: "lalib-tools", role: "group", "aria-label": "other answers" },
      ...tools.map((tool) => button(...tool))));
  root.append(element("div", { class: "lalib-top" }, stage, panel), bar, status, live, alert);
  el.append(root);

  function tile(image, current) {
    const caption = captions[image], answered = words(answers[image]);
    const name = `image ${image + 1} of ${count}, ${caption}: ${answered}`;
    const picture = element("img", { src: pictures[image], alt: name });
    const text = element("figcaption", {}, sheet > 1 ? answered : caption);
    const made = element("figure", current ? { "aria-current": "true" } : {}, picture, text);
    if (sheet > 1) made.addEventListener("click", () => go(image));
    return made;
  }

  function draw() {
    const first = Math.floor(position / sheet) * sheet;
    const shown = Array.from({ length: Math.min(sheet, count - first) }, (_, i) => first + i);
    stage.className = sheet > 1 ? "lalib-stage lalib-sheet" : "lalib-stage";
    stage.replaceChildren(...shown.map((image) => tile(image, image === position)));
    const [left, unsure, skipped] = [NONE, UNSURE, SKIP].map((kind) => answers.filter((a) => a === kind).length);
    bar.value = count - left;
    status.textContent = `Image ${position + 1} of ${count}: ${words(answers[position])}. ` +
      `${count - left - unsure - skipped} labelled, ${unsure} not sure, ${skipped} skipped, ${left} left. ` +
      (unsaved.size ? `Saving ${unsaved.size}.` : "All saved.");
    choices.forEach((choice, c) => choice.setAttribute("aria-pressed", String(answers[position] === c)));
    live.textContent = suggestion || said;
    alert.textContent = trouble;
    Object.assign(root.dataset, { unsaved: unsaved.size, left });
  }

  function tell(message) {
    model.send({ number: ++number, ...message });
    return number;
  }

  function answer(given) {
    past.push({ image: position, before: answers[position] });
    answers[position] = given;
    unsaved.set(tell({ kind: "answer", image: position, answer: given }), position);
    said = `Image ${position + 1}: ${words(given)}.`;
    trouble = "";
    const others = Array.from({ length: count - 1 }, (_, i) => (position + 1 + i) % count);
    const next = (kind) => others.find((image) => answers[image] === kind);
    go(next(NONE) ?? next(SKIP) ?? position);
  }

  function undo() { // at once here, so that the next key finds the image; the kernel knows of earlier sessions, too
    const last = past.pop();
    if (last) {
      answers[last.image] = last.before;
      said = `Undone: image ${last.image + 1}: ${words(last.before)}.`;
    }
    unsaved.set(tell({ kind: "undo" }), last?.image);
    go(last?.image ?? position);
  }

  function go(image) {
    position = Math.min(Math.max(image, 0), count - 1);
    suggestion = "";
    draw();
  }

  const actions = Object.fromEntries(tools.map(([, key, action]) => [key, action]));
  Object.assign(actions, { Backspace: undo, ArrowUp: () => go(position - 5), ArrowDown: () => go(position + 5) });
  keys.forEach((key, c) => { if (key) actions[key] = () => answer(c); });

  root.addEventListener("keydown", (event) => {
    const action = actions[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    event.stopPropagation(); // no key pressed here is meant for the notebook
    if (!action) return; // Tab leaves, Enter and the space bar press the button that has the focus
    event.preventDefault();
    action();
  });

  model.on("msg:custom", (message) => {
    const image = unsaved.get(message.number);
    unsaved.delete(message.number);
    if (message.kind === "refused") {
      if (message.answer !== undefined) {
        answers[image] = message.answer;
        position = trouble ? Math.min(position, image) : image;
      }
      trouble = message.why;
    } else if (message.kind === "undone" && image === undefined) { // an answer of an earlier session
      answers[message.image] = message.answer;
      said = `Undone: image ${message.image + 1}: ${words(message.answer)}.`;
      position = message.image;
    } else if (message.kind === "suggestion" && message.image === position) {
      suggestion = message.text;
    }
    draw();
  });
  model.on("change:answers", () => {
    if (unsaved.size) return; // keys are ahead of the kernel
    answers = [...model.get("answers")];
    draw();
  });
  draw();
  if (model.get("focused")) {
    new ResizeObserver((_, observer) => { // once it is on the page
      observer.disconnect();
      root.focus();
      root.scrollIntoView({ block: "nearest" });
    }).observe(root);
  }
} };
