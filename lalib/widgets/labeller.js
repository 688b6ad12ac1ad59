// The labeller's front end: it moves on with every key and tells the kernel, which saves and answers.
// An image is its place in the lists of labeller.py; from `count` on, those that are folded under one of the first.
// An answer is a class number, or one of these, as in labeller.py:
const NONE = -1, UNSURE = -2, SKIP = -3, SHEET = 25;
const ARROWS = { ArrowLeft: "←", ArrowRight: "→" };
const AHEAD = 3, KEPT = 8; // files that are asked for before they are shown, and that are kept
const TYPES = ["image/jpeg", "image/png", "image/gif", "image/webp"]; // nothing that a browser runs
const PATIENCE = 8000; // ms without a word of the kernel
const FIT = { scale: 1, x: 0, y: 0 }, LARGEST = 40;

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export default { render({ model, el }) {
  const [classes, keys, captions, pictures, copied] =
    ["classes", "shortcuts", "captions", "pictures", "copied"].map((name) => model.get(name));
  const count = pictures.length - copied.length, every = [...Array(count).keys()];
  if (!count) {
    el.append(element("p", { class: "lalib-labeller" }, "There is nothing to label here."));
    return;
  }
  let answers = [...model.get("answers")], sheet = model.get("sheet");
  let list = every, at = Math.max(0, answers.indexOf(NONE)) % count; // the images that one moves through, where one is
  let opened = null; // how things stood before near copies were opened
  const chosen = new Set(); // on a sheet
  const tiles = new Map(), files = new Map(); // by image; of a file {url, note, trouble}, the last used at the end
  let zoom = FIT, asking = false;
  let number = 0; // of the last message to the kernel
  const unsaved = new Map(); // number -> images
  const past = []; // what undo takes back: lists of {image, before}, the last answer at the end
  let said = "", trouble = "", suggestion = "";
  let silent = false, waiting = 0; // for the kernel, which may be busy, or gone
  const without = { [NONE]: "no answer", [UNSURE]: "not sure", [SKIP]: "skipped" }; // a class
  const words = (answer) => without[answer] ?? classes[answer];
  const open = (image) => answers[image] === NONE;
  const shown = () => list.slice(Math.floor(at / sheet) * sheet).slice(0, sheet); // the current image, or its sheet
  const columns = () => (sheet > 1 ? Math.ceil(Math.sqrt(Math.min(sheet, list.length))) : 5); // up and down go so far
  const near = (image) => copied.flatMap((under, i) => (under === image ? [count + i] : []));
  const title = (image) => (image < count ? `Image ${image + 1}` : `Near copy of image ${copied[image - count] + 1}`);
  const among = (image) => (image < count ? `${title(image)} of ${count}` : title(image));
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
    const made = element("button", { type: "button", "aria-label": name ?? text }, ...shortcut, element("span", {}, text));
    if (key) made.setAttribute("aria-keyshortcuts", key);
    made.addEventListener("click", () => { action(); root.focus(); });
    return made;
  }

  const choices = classes.map((name, c) => button(name, keys[c], () => answer(c), `label as ${name}`));
  const single = () => sheet === 1, several = () => sheet > 1, always = () => true;
  const tools = [ // when it is there, text, key, what it does, name
    [always, "not sure", "u", () => answer(UNSURE)],
    [always, "skip", "s", () => answer(SKIP), "skip, show again later"],
    [always, "undo", "z", undo],
    [always, "previous", "ArrowLeft", (event) => move(-1, event)],
    [always, "next", "ArrowRight", (event) => move(1, event)],
    [single, "zoom in", "+", () => enlarge(1.5)],
    [single, "zoom out", "-", () => enlarge(1 / 1.5)],
    [single, "fit", ".", () => look(FIT), "fit the image into its frame"],
    [() => !opened, "sheet of 25", "v", () => { sheet = sheet > 1 ? 1 : SHEET; go(at); }, "show one image or a sheet of 25"],
    [several, "all of the sheet", "*", chooseAll, "choose all images of the sheet, or none"],
    [() => opened || near(list[at]).length, "near copies", ",", unfold, "show the near copies of this image, or close them"],
    [() => model.get("suggests"), "what does the model say?", "m", () => tell({ kind: "suggest", image: list[at] })],
  ];
  const buttons = tools.map(([, ...tool]) => button(...tool));
  const folded = buttons[tools.findIndex(([, , key]) => key === ",")].lastChild;
  const filters = [["all images", always], ["not answered", (a) => a === NONE || a === SKIP], ["not sure", (a) => a === UNSURE],
    ...classes.map((name, c) => [name, (a) => a === c])];
  const filter = element("select", { "aria-label": "which images are shown" },
    ...filters.map(([name], i) => element("option", { value: i }, name)));
  filter.addEventListener("change", () => { find(Number(filter.value)); root.focus(); });
  const panel = element("div", { class: "lalib-panel" },
    element("div", { class: "lalib-classes", role: "group", "aria-label": "classes" }, ...choices),
    element("div", { class: "lalib-tools", role: "group", "aria-label": "other answers" }, ...buttons),
    element("label", {}, "show ", filter));
  root.append(element("div", { class: "lalib-top" }, stage, panel), bar, status, live, alert);
  el.append(root);

  function tile(image) {
    if (!tiles.has(image)) {
      const picture = element("img", { draggable: "false" });
      picture.addEventListener("load", () => sharpen(picture, 1));
      picture.addEventListener("error", () => { files.set(image, {}); draw(); }); // the small picture is shown again
      const made = element("figure", {}, element("div", { class: "lalib-frame" }, picture), element("figcaption"));
      made.addEventListener("click", (event) => { if (sheet > 1) choose(image, event.shiftKey); });
      tiles.set(image, made);
    }
    const made = tiles.get(image), picture = made.firstChild.firstChild, file = files.get(image);
    const source = (sheet === 1 && file?.url) || pictures[image], answered = words(answers[image]);
    if (picture.getAttribute("src") !== source) picture.src = source; // else the browser would decode it again
    picture.alt = `${among(image).toLowerCase()}, ${captions[image]}: ${answered}`;
    picture.style.transform = "";
    const caption = image < count ? captions[image] : `near copy: ${captions[image]}`;
    made.lastChild.textContent = opened ? caption : sheet > 1 ? answered : [caption, file?.note ?? []].flat().join(", ");
    made.title = captions[image];
    made.toggleAttribute("data-chosen", chosen.has(image));
    made.removeAttribute("aria-current");
    return made;
  }

  function draw() {
    const image = list[at];
    stage.className = sheet > 1 ? "lalib-stage lalib-sheet" : "lalib-stage";
    stage.style.setProperty("--columns", columns());
    stage.replaceChildren(...shown().map(tile));
    tiles.get(image).setAttribute("aria-current", "true");
    if (zoom !== FIT) look(zoom); // which asks for the frame's size: no key waits for a layout
    const [left, unsure, skipped] = [NONE, UNSURE, SKIP].map((kind) => every.filter((i) => answers[i] === kind).length);
    bar.value = count - left;
    const place = list === every ? "" : ` (${at + 1} of ${list.length} shown)`;
    const many = chosen.size ? ` The next answer is for ${chosen.size} chosen images.` : "";
    status.textContent = `${among(image)}${place}: ${words(answers[image])}.${many} ` +
      `${count - left - unsure - skipped} labelled, ${unsure} not sure, ${skipped} skipped, ${left} left. ` +
      (unsaved.size ? `Saving ${unsaved.size}.` : "All saved.");
    choices.forEach((choice, c) => choice.setAttribute("aria-pressed", String(answers[image] === c)));
    tools.forEach(([there], i) => { buttons[i].hidden = !there(); });
    folded.textContent = opened ? "close the near copies" : `near copies: ${near(image).length}`;
    live.textContent = suggestion || said;
    const lost = `${unsaved.size} not saved: there is no reply. If this stays, load the page again; what was saved is kept.`;
    alert.textContent = (silent && unsaved.size && lost) || trouble || (sheet === 1 && files.get(image)?.trouble) || "";
    Object.assign(root.dataset, { unsaved: unsaved.size, left });
    ask();
  }

  function wait() {
    waiting ||= setTimeout(() => { silent = true; draw(); }, PATIENCE);
  }

  function tell(message) {
    wait();
    model.send({ number: ++number, ...message });
    return number;
  }

  function answer(given) { // of what is chosen, else of the current image
    const images = chosen.size ? [...chosen] : [list[at]];
    past.push(images.map((image) => ({ image, before: answers[image] })));
    for (const image of images) answers[image] = given;
    unsaved.set(tell({ kind: "answer", images, answer: given }), images);
    said = images.length > 1 ? `${images.length} images: ${words(given)}.` : `${title(images[0])}: ${words(given)}.`;
    trouble = "";
    if (opened) unfold();
    const others = Array.from({ length: list.length - 1 }, (_, i) => (at + 1 + i) % list.length);
    const next = (kind) => others.find((i) => answers[list[i]] === kind);
    const following = list === every ? at : at + 1; // of a class found again, one after the other
    go(open(list[at]) ? at : next(NONE) ?? next(SKIP) ?? following);
  }

  function undo() { // at once here, so that the next key finds the image; the kernel knows of earlier sessions, too
    const last = past.pop() ?? [];
    for (const { image, before } of last) answers[image] = before;
    const [first] = last;
    if (first) said = `Undone: ${last.length > 1 ? `${last.length} images` : `${title(first.image)}: ${words(first.before)}`}.`;
    unsaved.set(tell({ kind: "undo", count: last.length || 1 }), last.map(({ image }) => image));
    show(first?.image ?? list[at]);
  }

  function go(place, choosing = false) {
    const before = list[at];
    at = Math.min(Math.max(place, 0), list.length - 1);
    if (list[at] !== before) zoom = FIT;
    if (!choosing) chosen.clear();
    suggestion = "";
    draw();
  }

  function show(image) { // wherever it is: a near copy under its image, and what is not in the list among all
    if (opened) unfold();
    const wanted = image < count ? image : copied[image - count];
    if (!list.includes(wanted)) [list, filter.value] = [every, 0];
    go(list.indexOf(wanted));
  }

  function find(which) { // the list stays as it is found, whatever is answered then
    const found = every.filter((image) => filters[which][1](answers[image]));
    if (opened) unfold();
    said = found.length ? "" : `There is no image of these: ${filters[which][0]}.`;
    filter.value = found.length ? which : 0;
    list = which && found.length ? found : every;
    zoom = FIT;
    at = -1;
    go(list.findIndex(open));
  }

  function unfold() { // the current image's near copies, all of them chosen; or back
    const image = list[at];
    if (opened) {
      ({ list, at, sheet } = opened);
      opened = null;
      chosen.clear();
    } else if (near(image).length) {
      opened = { list, at, sheet };
      list = [image, ...near(image)];
      [at, sheet] = [0, SHEET];
      chosen.clear();
      list.forEach((each) => chosen.add(each));
    }
    zoom = FIT;
    draw();
  }

  function choose(image, through) { // it, or not; through: all from the current one to it
    const to = list.indexOf(image), span = list.slice(Math.min(at, to), Math.max(at, to) + 1);
    if (through) span.forEach((each) => chosen.add(each));
    else if (!chosen.delete(image)) chosen.add(image);
    at = to;
    draw();
  }

  function chooseAll() {
    const all = shown().every((image) => chosen.has(image));
    shown().forEach((image) => (all ? chosen.delete(image) : chosen.add(image)));
    draw();
  }

  function move(step, event) { // with shift over a sheet it chooses, over an image it moves the part that is seen
    const to = Math.min(Math.max(at + step, 0), list.length - 1), by = -60 * Math.sign(step);
    if (!event?.shiftKey) go(to, true);
    else if (sheet > 1) choose(list[to], true);
    else look({ ...zoom, ...(Math.abs(step) === 1 ? { x: zoom.x + by } : { y: zoom.y + by }) });
  }

  // The file itself: one is asked for at a time, so that answers never wait behind more than one.

  function ask() {
    if (asking || sheet > 1 || !model.get("whole")) return;
    const rest = list.slice(at + 1), coming = rest.some(open) ? rest.filter(open) : rest;
    const image = [list[at], ...coming.slice(0, AHEAD)].find((each) => !files.has(each));
    if (image === undefined) return;
    asking = true;
    tell({ kind: "file", image });
  }

  function keep({ image, type, note, trouble }, [bytes]) {
    asking = false;
    const url = TYPES.includes(type) ? URL.createObjectURL(new Blob([bytes], { type })) : undefined;
    files.set(image, { url, note, trouble });
    const old = [...files.keys()].filter((each) => each !== list[at]).slice(0, Math.max(0, files.size - KEPT));
    for (const each of old) {
      URL.revokeObjectURL(files.get(each).url);
      files.delete(each);
      tiles.delete(each);
    }
    if (sheet === 1) tile(image); // the browser begins to decode it
  }

  function sharpen(picture, scale) { // large pixels are shown as squares
    picture.classList.toggle("lalib-pixels", picture.naturalWidth < stage.clientWidth * scale / 2);
  }

  function look(wanted) { // at a part of the one image
    const frame = tiles.get(list[at]).firstChild, picture = frame.firstChild;
    const scale = Math.min(Math.max(wanted.scale, 1), LARGEST);
    const within = (to, side) => Math.min(Math.max(to, (side * (1 - scale)) / 2), (side * (scale - 1)) / 2);
    zoom = { scale, x: within(wanted.x, frame.clientWidth), y: within(wanted.y, frame.clientHeight) };
    if (sheet > 1) return;
    picture.style.transform = `translate(${zoom.x}px, ${zoom.y}px) scale(${scale})`;
    sharpen(picture, scale);
  }

  function enlarge(by, x = 0, y = 0) { // what is x, y pixels from the middle of the frame stays there
    const scale = Math.min(Math.max(zoom.scale * by, 1), LARGEST), grown = scale / zoom.scale;
    look({ scale, x: x - (x - zoom.x) * grown, y: y - (y - zoom.y) * grown });
  }

  stage.addEventListener("wheel", (event) => {
    if (sheet > 1 || !root.contains(document.activeElement)) return; // then it scrolls the page
    event.preventDefault();
    const box = tiles.get(list[at]).firstChild.getBoundingClientRect();
    enlarge(1.002 ** -event.deltaY, event.clientX - box.x - box.width / 2, event.clientY - box.y - box.height / 2);
  }, { passive: false });
  stage.addEventListener("pointermove", (event) => {
    if (sheet === 1 && event.buttons === 1) look({ ...zoom, x: zoom.x + event.movementX, y: zoom.y + event.movementY });
  });

  const actions = Object.fromEntries(tools.map(([, , key, action]) => [key, action]));
  Object.assign(actions, { Backspace: undo, "=": actions["+"], Escape: () => { if (opened) unfold(); } });
  Object.assign(actions, { ArrowUp: (event) => move(-columns(), event), ArrowDown: (event) => move(columns(), event) });
  keys.forEach((key, c) => { if (key) actions[key] = () => answer(c); });

  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    event.stopPropagation(); // no key pressed here is meant for the notebook
    if (event.target === filter) return;
    const choice = event.key === " " && event.target === root && sheet > 1 && (() => choose(list[at]));
    const action = choice || actions[event.key];
    if (!action) return; // Tab leaves, Enter and the space bar press the button that has the focus
    event.preventDefault();
    action(event);
  });

  function hear(message, buffers) {
    const images = unsaved.get(message.number);
    unsaved.delete(message.number);
    clearTimeout(waiting);
    [silent, waiting] = [false, 0];
    if (unsaved.size) wait();
    if (message.kind === "file") keep(message, buffers);
    if (message.kind === "refused") {
      const earlier = !trouble || images?.[0] < list[at];
      trouble = message.why;
      message.answers?.forEach((before, i) => { answers[images[i]] = before; });
      if (message.answers && earlier) show(images[0]);
    } else if (message.kind === "undone" && images?.length === 0) { // an answer of an earlier session
      answers[message.images[0]] = message.answers[0];
      said = `Undone: ${title(message.images[0])}: ${words(message.answers[0])}.`;
      show(message.images[0]);
    } else if (message.kind === "suggestion" && message.image === list[at]) {
      suggestion = message.text;
    }
    draw();
  }

  function renew() {
    if (unsaved.size) return; // keys are ahead of the kernel
    answers = [...model.get("answers")];
    draw();
  }

  model.on("msg:custom", hear);
  model.on("change:answers", renew);
  draw();
  if (model.get("focused")) {
    new ResizeObserver((_, observer) => { // once it is on the page
      observer.disconnect();
      root.focus();
      root.scrollIntoView({ block: "nearest" });
    }).observe(root);
  }
  return () => { // when it leaves the page
    clearTimeout(waiting);
    model.off("msg:custom", hear);
    model.off("change:answers", renew);
    files.forEach(({ url }) => URL.revokeObjectURL(url));
  };
} };
