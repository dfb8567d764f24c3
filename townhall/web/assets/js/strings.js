// Every text of the page, English and German side by side. t("key", {n: 3}) fills {n}; a pair of forms "one|many" is chosen by n.
import { store } from "./store.js";

export const LANGUAGES = { en: "English", de: "Deutsch" };
const ORDER = Object.keys(LANGUAGES);
const CHOSEN = "townhall-language";

export const STRINGS = {
  // the page as a whole
  skip: ["Skip to your message", "Zu deiner Nachricht springen"],
  close: ["Close", "Schließen"],
  cancel: ["Cancel", "Abbrechen"],
  save: ["Save", "Speichern"],
  remove: ["Remove", "Entfernen"],
  "delete": ["Delete", "Löschen"],
  keep: ["Keep", "Behalten"],
  copy: ["Copy", "Kopieren"],
  copied: ["Copied", "Kopiert"],
  loading: ["Loading …", "Wird geladen …"],
  reload: ["Load the page again", "Seite neu laden"],
  more: ["More", "Mehr"],
  off: ["Off", "Aus"],
  on: ["On", "An"],
  "view.failed": ["This part of the page could not be loaded.", "Dieser Teil der Seite konnte nicht geladen werden."],
  "view.unknown": ["There is no such page.", "Diese Seite gibt es nicht."],
  "side.label": ["Chats and views", "Chats und Ansichten"],
  "side.views": ["Views", "Ansichten"],
  "side.open": ["Open the side bar", "Seitenleiste öffnen"],
  "side.close": ["Close the side bar", "Seitenleiste schließen"],
  "server.gone": ["The server does not answer; the page goes on as soon as it is back.", "Der Server antwortet nicht; sobald er wieder da ist, geht es weiter."],
  "server.broken": ["The server went away in the middle of this reply; what came of it is kept.", "Der Server ist mitten in dieser Antwort verschwunden; was davon da ist, bleibt."],
  "server.loading": ["The server is loading its model; this takes a moment.", "Der Server lädt sein Modell; das dauert einen Moment."],
  "server.overflow": ["This does not fit into the context window any more: shorten it, begin a new chat, or choose a context strategy that forgets (in the settings).",
    "Das passt nicht mehr in das Kontextfenster: kürze es, beginne einen neuen Chat, oder wähle in den Einstellungen eine Kontextstrategie, die vergisst."],
  "server.status": ["The server answered with status {status}.", "Der Server hat mit Status {status} geantwortet."],
  "key.title": ["This server asks for a key", "Dieser Server verlangt einen Schlüssel"],
  "key.label": ["API key", "API-Schlüssel"],
  "key.help": ["It is kept until this tab is closed.", "Er wird behalten, bis dieser Tab geschlossen wird."],
  "key.use": ["Use this key", "Schlüssel verwenden"],

  // the list of chats
  "chats.title": ["Chats", "Chats"],
  "chat.new": ["New chat", "Neuer Chat"],
  "chats.filter": ["Filter chats", "Chats filtern"],
  "chats.none": ["What you say is kept here.", "Was du sagst, wird hier aufbewahrt."],
  "chats.noneFound": ["No chat fits.", "Kein Chat passt."],
  "chats.more": ["Show more", "Weitere zeigen"],
  "chats.loose": ["Without a folder", "Ohne Ordner"],
  "chats.all": ["All chats", "Alle Chats"],
  "chats.byTag": ["Show only chats with this tag", "Nur Chats mit diesem Schlagwort zeigen"],
  "chats.menu": ["Actions for “{name}”", "Aktionen für „{name}“"],
  "chats.empty": ["Empty", "Leer"],
  "chats.unreadable": ["cannot be read: {fault}", "nicht lesbar: {fault}"],
  "chats.busy": ["a reply is being written", "eine Antwort entsteht gerade"],
  "chat.rename": ["Rename", "Umbenennen"],
  "chat.newName": ["New name for “{name}”", "Neuer Name für „{name}“"],
  "chat.name": ["Name", "Name"],
  "chat.saveName": ["Save name", "Namen speichern"],
  "chat.folder": ["Move to a folder", "In einen Ordner legen"],
  "chat.folderName": ["Folder (empty: none)", "Ordner (leer: keiner)"],
  "chat.tags": ["Tags", "Schlagwörter"],
  "chat.tagsHelp": ["Tags, separated by commas", "Schlagwörter, durch Kommas getrennt"],
  "chat.exportMd": ["Export as Markdown", "Als Markdown exportieren"],
  "chat.exportJson": ["Export as JSON", "Als JSON exportieren"],
  "chat.delete": ["Delete", "Löschen"],
  "chat.deleteTitle": ["Delete “{name}”?", "„{name}“ löschen?"],
  "chat.deleteText": ["The chat and its file are gone for good.", "Der Chat und seine Datei sind dann endgültig weg."],
  "chat.deleteYes": ["Delete “{name}” for good", "„{name}“ endgültig löschen"],
  "chat.gone": ["The chat that stood here was deleted.", "Der Chat, der hier stand, wurde gelöscht."],
  "chat.missing": ["This chat is not there any more; it was deleted or moved.", "Diesen Chat gibt es nicht mehr; er wurde gelöscht oder verschoben."],
  "chat.readOnly": ["This server does not have {name}; the chat can be read, and answered by whom you choose in the settings.",
    "Dieser Server hat {name} nicht; der Chat kann gelesen werden, und es antwortet, wen du in den Einstellungen wählst."],

  // the conversation
  "talk.label": ["Conversation", "Gespräch"],
  "talk.you": ["You", "Du"],
  "talk.said": ["{name} says: {text}", "{name} sagt: {text}"],
  "talk.writing": ["{name} is writing; Escape stops.", "{name} schreibt; Escape hält an."],
  "talk.reading": ["reading …", "liest …"],
  "talk.waiting": ["writing …", "schreibt …"],
  "talk.sending": ["being sent …", "wird gesendet …"],
  "talk.toEnd": ["To the newest message", "Zur neuesten Nachricht"],
  "talk.interrupted": ["Stopped before its end.", "Vor dem Ende angehalten."],
  "talk.length": ["Cut off: the reply reached its limit.", "Abgeschnitten: die Antwort hat ihre Grenze erreicht."],
  "talk.edited": ["edited", "bearbeitet"],
  "talk.forgot": ["Forgot the {n} oldest messages to make room: {tokens} tokens of this chat have left the window of {window} ({strategy}).",
    "Die {n} ältesten Nachrichten sind vergessen, um Platz zu machen: {tokens} Token dieses Chats haben das Fenster von {window} verlassen ({strategy})."],
  "talk.forgotMore": ["Forgot {n} more messages to make room: {tokens} tokens of this chat have left the window of {window} ({strategy}).",
    "{n} weitere Nachrichten sind vergessen, um Platz zu machen: {tokens} Token dieses Chats haben das Fenster von {window} verlassen ({strategy})."],
  "talk.showAll": ["Show all {n} characters", "Alle {n} Zeichen zeigen"],
  "talk.thoughts": ["Thoughts", "Gedanken"],
  "talk.thinking": ["Thinking …", "Denkt nach …"],
  "talk.rate": ["{tokens} tokens, {rate} a second", "{tokens} Token, {rate} pro Sekunde"],
  "code.copy": ["Copy code", "Code kopieren"],
  "message.actions": ["Actions for this message", "Aktionen für diese Nachricht"],
  "message.edit": ["Edit", "Bearbeiten"],
  "message.editLabel": ["Edit message", "Nachricht bearbeiten"],
  "message.sendAgain": ["Send again", "Erneut senden"],
  "message.retry": ["Retry", "Neu versuchen"],
  "message.retryWith": ["Retry with other settings …", "Neu mit anderen Einstellungen …"],
  "message.continue": ["Continue", "Fortsetzen"],
  "message.branch": ["Branch from here", "Von hier abzweigen"],
  "message.branchChat": ["New chat from here", "Neuer Chat ab hier"],
  "message.delete": ["Delete this message", "Diese Nachricht löschen"],
  "message.deleteBelow": ["Delete from here on", "Ab hier alles löschen"],
  "message.deleteTitle": ["Delete from here on?", "Ab hier alles löschen?"],
  "message.deleteText": ["This message and everything after it leave the conversation. The log keeps them as taken back.",
    "Diese Nachricht und alles danach verlassen das Gespräch. Das Protokoll behält sie als zurückgenommen."],
  "message.probabilities": ["Token probabilities", "Token-Wahrscheinlichkeiten"],
  "message.text": ["Back to the text", "Zurück zum Text"],
  "swipe.previous": ["Previous version", "Vorige Fassung"],
  "swipe.next": ["Next version", "Nächste Fassung"],
  "swipe.another": ["Another version", "Weitere Fassung"],
  "swipe.count": ["Version {at} of {of}", "Fassung {at} von {of}"],
  "branch.here": ["What you say next is a new branch from here.", "Was du als Nächstes sagst, ist ein neuer Zweig ab hier."],
  "token.of": ["{text}: {share} %", "{text}: {share} %"],
  "token.list": ["Tokens of this reply", "Token dieser Antwort"],
  "token.alternatives": ["Alternatives for “{text}”", "Alternativen für „{text}“"],
  "token.help": ["Choose one and the reply goes on from there, as another version.", "Wähle eine aus, und die Antwort geht von dort weiter, als weitere Fassung."],
  "tree.title": ["Branches", "Zweige"],
  "tree.help": ["Every version of every message. Choose one to go there.", "Jede Fassung jeder Nachricht. Wähle eine, um dorthin zu gehen."],
  "tree.now": ["on the path that is shown", "auf dem gezeigten Pfad"],

  // writing
  "composer.label": ["Message", "Nachricht"],
  "composer.placeholder": ["Say something to {name}", "Sag etwas zu {name}"],
  "composer.send": ["Send", "Senden"],
  "composer.stop": ["Stop", "Stopp"],
  "composer.undo": ["Undo", "Zurücknehmen"],
  "composer.undoHelp": ["Take the last exchange back", "Den letzten Wortwechsel zurücknehmen"],
  "composer.prefill": ["Begin the reply with …", "Antwort beginnen mit …"],
  "composer.prefillLabel": ["The reply begins with", "Die Antwort beginnt mit"],
  "composer.impersonate": ["Write my next message", "Meine nächste Nachricht schreiben"],
  "composer.asThem": ["Say this as {name}", "Dies als {name} sagen"],
  "composer.withoutReply": ["Add without a reply", "Ohne Antwort hinzufügen"],
  "composer.menu": ["More ways to send", "Weitere Möglichkeiten"],
  "composer.tokens": ["{n} token|{n} tokens", "{n} Token|{n} Token"],
  "composer.prompt": ["{prompt} of {window} tokens with this message", "{prompt} von {window} Token mit dieser Nachricht"],
  "composer.wouldDrop": ["this message would push {n} tokens out of the window", "diese Nachricht würde {n} Token aus dem Fenster schieben"],
  "composer.conflict": ["Somebody went on in this chat, in another tab or program; look at what is there, then send again.",
    "In diesem Chat ging es anderswo weiter, in einem anderen Tab oder Programm; sieh es dir an und sende dann erneut."],
  "composer.busy": ["A reply is still being written; stop it or wait for its end.", "Es wird noch eine Antwort geschrieben; halte sie an oder warte ihr Ende ab."],
  "window.label": ["Context window", "Kontextfenster"],
  "window.empty": ["The context window fills as you talk.", "Das Kontextfenster füllt sich im Gespräch."],
  "window.nothing": ["nothing said yet", "noch nichts gesagt"],
  "window.pinned": ["pinned", "fest"],
  "window.memory": ["memory", "Gedächtnis"],
  "window.recent": ["recent", "jüngst"],
  "window.reserve": ["reserve", "Reserve"],
  "window.free": ["free", "frei"],
  "window.pinnedHelp": ["the character, always in view", "die Figur, immer im Blick"],
  "window.memoryHelp": ["a memory of what was forgotten", "eine Erinnerung an Vergessenes"],
  "window.recentHelp": ["the talk as the model sees it", "das Gespräch, wie das Modell es sieht"],
  "window.reserveHelp": ["kept for the next reply", "für die nächste Antwort freigehalten"],
  "window.freeHelp": ["free", "frei"],
  "window.of": ["{parts} of {window} tokens", "{parts} von {window} Token"],

  // a new chat
  "new.title": ["Who would you like to talk to?", "Mit wem möchtest du sprechen?"],
  "new.characters": ["Characters", "Figuren"],
  "new.bare": ["The model itself, with no character to play", "Das Modell selbst, ohne Rolle"],
  "new.try": ["Three things to try", "Drei Dinge zum Ausprobieren"],
  "new.tryAsk": ["Ask a question", "Eine Frage stellen"],
  "new.tryAskText": ["How far away is the moon?", "Wie weit ist der Mond entfernt?"],
  "new.trySwipe": ["Let it write a poem, then press the arrow for another version", "Ein Gedicht schreiben lassen, dann mit dem Pfeil eine andere Fassung"],
  "new.trySwipeText": ["Write me four lines about the sea.", "Schreib mir vier Zeilen über das Meer."],
  "new.tryTokens": ["Look at what else it could have said", "Ansehen, was es sonst hätte sagen können"],
  "new.tryTokensText": ["Name three animals that can fly.", "Nenne drei Tiere, die fliegen können."],

  // settings of a chat
  "settings.title": ["Settings", "Einstellungen"],
  "settings.open": ["Settings of this chat", "Einstellungen dieses Chats"],
  "settings.who": ["Who answers", "Wer antwortet"],
  "settings.preset": ["Preset", "Voreinstellung"],
  "settings.presetNone": ["As the server has it", "Wie der Server es hält"],
  "settings.presetOwn": ["Changed", "Geändert"],
  "settings.presetSave": ["Save as a preset", "Als Voreinstellung sichern"],
  "settings.presetName": ["Name of the preset", "Name der Voreinstellung"],
  "settings.presetDelete": ["Delete this preset", "Diese Voreinstellung löschen"],
  "settings.reset": ["Reset all", "Alles zurücksetzen"],
  "settings.sampling": ["Sampling", "Auswahl der Wörter"],
  "settings.rare": ["More samplers", "Weitere Sampler"],
  "settings.seed": ["Seed", "Zufallszahl"],
  "settings.seedHelp": ["a whole number; empty: another one each time", "eine ganze Zahl; leer: jedes Mal eine andere"],
  "settings.maxTokens": ["Max tokens", "Höchste Tokenzahl"],
  "settings.maxTokensHelp": ["in a reply", "in einer Antwort"],
  "settings.context": ["Context", "Kontext"],
  "settings.think": ["Think first", "Erst nachdenken"],
  "settings.thinkDefault": ["As the model has it", "Wie das Modell es hält"],
  "settings.stop": ["Stop strings", "Stopptexte"],
  "settings.stopHelp": ["one on each line; a reply ends before it", "einer je Zeile; davor endet eine Antwort"],
  "settings.system": ["System prompt", "Systemprompt"],
  "settings.systemHelp": ["takes the place of the character's description; empty: its own", "anstelle der Beschreibung der Figur; leer: deren eigene"],
  "settings.note": ["Author's note", "Anmerkung des Autors"],
  "settings.noteHelp": ["stands in the prompt so many messages before its end", "steht so viele Nachrichten vor dem Ende im Prompt"],
  "settings.noteDepth": ["Depth", "Tiefe"],
  "settings.noteRole": ["Said by", "Gesagt von"],
  "settings.texts": ["System prompt and author's note", "Systemprompt und Anmerkung des Autors"],
  "settings.breakersFault": ["A JSON list of texts, such as {example}", "Eine JSON-Liste von Texten, etwa {example}"],
  "role.system": ["System", "System"],
  "role.user": ["User", "Nutzer"],
  "role.assistant": ["Character", "Figur"],
  "retry.title": ["Retry with other settings", "Neu mit anderen Einstellungen"],
  "retry.help": ["For this reply only.", "Nur für diese Antwort."],
  "preset.precise": ["Precise", "Genau"],
  "preset.balanced": ["Balanced", "Ausgewogen"],
  "preset.creative": ["Creative", "Kreativ"],
  "preset.greedy": ["Always the likeliest", "Stets das Wahrscheinlichste"],

  // search
  "search.title": ["Search", "Suche"],
  "search.label": ["Search in all chats", "In allen Chats suchen"],
  "search.none": ["Nothing was found.", "Nichts gefunden."],
  "search.hits": ["{n} hit|{n} hits", "{n} Treffer|{n} Treffer"],
  "search.hint": ["Words that a message must hold, in any order.", "Wörter, die eine Nachricht enthalten muss, in beliebiger Reihenfolge."],
  "search.offPath": ["on another branch", "auf einem anderen Zweig"],

  // preferences of this browser
  "preferences.title": ["Preferences", "Vorlieben"],
  "preferences.about": ["Of this browser; every chat has settings of its own.", "Dieses Browsers; jeder Chat hat eigene Einstellungen."],
  "preferences.theme": ["Theme", "Farben"],
  "preferences.themeSystem": ["As the system has it", "Wie das System"],
  "preferences.themeLight": ["Light", "Hell"],
  "preferences.themeDark": ["Dark", "Dunkel"],
  "preferences.language": ["Language", "Sprache"],
  "preferences.sendWith": ["Send with", "Senden mit"],
  "preferences.sendEnter": ["Enter (Shift + Enter begins a line)", "Enter (Umschalt + Enter beginnt eine Zeile)"],
  "preferences.sendCtrl": ["Ctrl + Enter (Enter begins a line)", "Strg + Enter (Enter beginnt eine Zeile)"],

  // help
  "help.title": ["Help", "Hilfe"],
  "help.more": ["Point at a message for what can be done with it; with the keyboard, ↑ and ↓ move between messages.",
    "Zeig auf eine Nachricht, um zu sehen, was damit geht; mit der Tastatur führen ↑ und ↓ von Nachricht zu Nachricht."],
  "keys.help": ["This list", "Diese Liste"],
  "keys.new": ["New chat", "Neuer Chat"],
  "keys.search": ["Search in all chats", "In allen Chats suchen"],
  "keys.settings": ["Settings of this chat", "Einstellungen dieses Chats"],
  "keys.send": ["Send", "Senden"],
  "keys.line": ["Begin a line", "Neue Zeile"],
  "keys.stop": ["Stop the reply, close what is open", "Antwort anhalten, Offenes schließen"],
  "keys.edit": ["Edit your last message (in an empty box)", "Letzte Nachricht bearbeiten (im leeren Feld)"],
  "keys.swipe": ["Other versions of the last reply", "Andere Fassungen der letzten Antwort"],
  "keys.retry": ["Retry", "Neu versuchen"],
  "keys.continue": ["Continue the last reply", "Letzte Antwort fortsetzen"],

  // sampler settings and context strategies, by the server's names
  "sampler.temperature": ["Temperature", "Temperatur"],
  "sampler.temperature.info": ["0 always takes the likeliest word", "0 nimmt stets das wahrscheinlichste Wort"],
  "sampler.top_k": ["Top k", "Top k"],
  "sampler.top_k.info": ["0 asks all", "0 fragt alle"],
  "sampler.top_p": ["Top p", "Top p"],
  "sampler.min_p": ["Min p", "Min p"],
  "sampler.top_n_sigma": ["Top n sigma", "Top n sigma"],
  "sampler.top_n_sigma.info": ["0 asks all", "0 fragt alle"],
  "sampler.repeat_penalty": ["Repeat penalty", "Strafe für Wiederholung"],
  "sampler.repeat_last_n": ["Repeat last n", "Rückblick der Strafen"],
  "sampler.repeat_last_n.info": ["-1 looks at all, 0 at none", "-1 sieht auf alle, 0 auf keine"],
  "sampler.presence_penalty": ["Presence penalty", "Strafe für Vorkommen"],
  "sampler.frequency_penalty": ["Frequency penalty", "Strafe für Häufigkeit"],
  "sampler.dry_multiplier": ["DRY multiplier", "DRY: Faktor"],
  "sampler.dry_multiplier.info": ["0 is off, 0.8 usual", "0 ist aus, 0,8 üblich"],
  "sampler.dry_base": ["DRY base", "DRY: Basis"],
  "sampler.dry_allowed_length": ["DRY allowed length", "DRY: erlaubte Länge"],
  "sampler.dry_penalty_last_n": ["DRY last n", "DRY: Rückblick"],
  "sampler.dry_penalty_last_n.info": ["-1 looks at all, 0 at none", "-1 sieht auf alle, 0 auf keine"],
  "sampler.dry_sequence_breakers": ["DRY sequence breakers", "DRY: Trenntexte"],
  "sampler.dry_sequence_breakers.info": ["a JSON list; no repetition reaches across one", "eine JSON-Liste; keine Wiederholung reicht über einen hinweg"],
  "sampler.xtc_probability": ["XTC probability", "XTC: Wahrscheinlichkeit"],
  "sampler.xtc_threshold": ["XTC threshold", "XTC: Schwelle"],
  "sampler.typical_p": ["Typical p", "Typical p"],
  "sampler.dynatemp_range": ["Dynatemp range", "Dynatemp: Bereich"],
  "sampler.dynatemp_range.info": ["0 is off", "0 ist aus"],
  "sampler.dynatemp_exponent": ["Dynatemp exponent", "Dynatemp: Exponent"],
  "sampler.mirostat": ["Mirostat", "Mirostat"],
  "sampler.mirostat.info": ["0 is off", "0 ist aus"],
  "sampler.mirostat_tau": ["Mirostat tau", "Mirostat tau"],
  "sampler.mirostat_eta": ["Mirostat eta", "Mirostat eta"],
  "strategy.slide": ["forget the oldest", "das Älteste vergessen"],
  "strategy.halve": ["forget half at once", "die Hälfte auf einmal vergessen"],
  "strategy.shift": ["forget, reread nothing", "vergessen, nichts neu lesen"],
  "strategy.summarize": ["forget, keep notes", "vergessen, Notizen behalten"],
  "strategy.stop": ["refuse what does not fit", "ablehnen, was nicht passt"],
};

/** A text in the language of the page. */
export function t(key, values = {}) {
  const pair = STRINGS[key];
  if (!pair) return key;
  let text = pair[ORDER.indexOf(store.get().language)] ?? pair[0];
  if (text.includes("|") && "n" in values) text = text.split("|")[values.n === 1 ? 0 : 1];
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? formatted(values[name]) : whole));
}

const formatted = (value) => (typeof value === "number" ? new Intl.NumberFormat(store.get().language).format(value) : String(value));

/** A text that may not be there: for names that the server gives. */
export const known = (key, otherwise) => (STRINGS[key] ? t(key) : otherwise);

/** A moment, short: the time for today, else the day. */
export function when(iso) {
  if (!iso) return "";
  const date = new Date(iso), today = new Date().toDateString() === date.toDateString();
  return new Intl.DateTimeFormat(store.get().language, today ? { timeStyle: "short" } : { dateStyle: "medium" }).format(date);
}

export function useLanguage(language) {
  document.documentElement.lang = language;
  store.set({ language });
}

export function chooseLanguage(language) {
  try { localStorage.setItem(CHOSEN, language); } catch { /* for this visit only */ }
  useLanguage(language);
}

export function startLanguage() {
  let chosen = null;
  try { chosen = localStorage.getItem(CHOSEN); } catch { /* the browser's own */ }
  const wanted = [chosen, ...navigator.languages].map((one) => one?.slice(0, 2));
  useLanguage(wanted.find((one) => one in LANGUAGES) ?? "en");
}
