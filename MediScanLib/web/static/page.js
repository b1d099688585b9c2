// Uploads, and what is said while the server does not answer. Everything else is trame's.
"use strict";

const POLL_MS = 2000;

function say(values) {
  const state = window.trame && window.trame.state;
  if (!state) return;
  for (const [name, value] of Object.entries(values)) state.set(name, value);
}

async function upload(files) {
  if (!files.length) return;
  const body = new FormData();
  for (const file of files) body.append("files", file, file.name);
  say({ problem: "", status: "Sending the image…" });
  try {
    const answer = await fetch("upload", { method: "POST", body });
    if (answer.ok) return;
    const kind = answer.headers.get("content-type") || "";
    const said = kind.includes("json") ? (await answer.json()).detail : await answer.text();
    say({ problem: said || "The image could not be sent.", status: "" });
  } catch (error) {
    say({ problem: "The image could not be sent: the connection broke, or it is too large. Try again.", status: "" });
  }
}

window.mediscan = {
  upload(event) {
    const files = [...event.target.files];
    event.target.value = "";
    upload(files);
  },
  drop(event) {
    upload([...event.dataTransfer.files]);
  },
  review(event) {
    return Object.fromEntries(new FormData(event.target));
  },
};

// What is said of a study begins at the top of the page, wherever its button was.
function followResults() {
  if (!(window.trame && window.trame.state)) {
    setTimeout(followResults, 200);
    return;
  }
  window.trame.state.addListener(({ type, keys }) => {
    if (type !== "dirty-state" || !keys.includes("result") || !window.trame.state.get("result")) return;
    setTimeout(() => {
      const certainty = document.getElementById("certainty");
      if (certainty) certainty.focus({ preventScroll: true });
      window.scrollTo({ top: 0 });
    }, 50);
  });
}

followResults();

let lost = false;

function show(title, text, ended) {
  document.getElementById("lost-title").textContent = title;
  document.getElementById("lost-text").textContent = text;
  const again = document.getElementById("lost-again");
  again.hidden = !ended;
  document.getElementById("lost").hidden = false;
  if (ended) again.focus();
}

async function look() {
  let status = 0;
  try {
    status = (await fetch("alive", { cache: "no-store" })).status;
  } catch (error) {
    status = 0;
  }
  if (status === 0 || status >= 500) {
    lost = true;
    show("The server does not answer", "Trying to reach it again. Nothing needs to be done.", false);
  } else if (status === 204 && (lost || document.querySelector("main.lost"))) {
    window.location.reload();
    return;
  } else if (status === 410) {
    show(
      "Your session has ended",
      "The server was started anew, you signed out, or nothing happened for a long time. What was uploaded is gone " +
        "from the server.",
      true,
    );
    return;
  }
  setTimeout(look, lost ? POLL_MS / 2 : POLL_MS);
}

setTimeout(look, POLL_MS);
