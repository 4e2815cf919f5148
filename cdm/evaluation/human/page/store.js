// Keeps answers: on the server that served this page, or in this browser until
// the person saves them as a file. Both survive a closed tab.
'use strict';
window.cdmStore = (function () {
  const KEY = 'cdm-study-';

  function remember(study, value) {
    try {
      localStorage.setItem(KEY + study, JSON.stringify(value));
    } catch (error) {  // A browser that keeps nothing loses a closed tab only.
    }
  }

  function recall(study) {
    try {
      return JSON.parse(localStorage.getItem(KEY + study)) || {};
    } catch (error) {
      return {};
    }
  }

  function forget(study) {
    try {
      localStorage.removeItem(KEY + study);
    } catch (error) {
    }
  }

  const pause = (ms) => new Promise((done) => setTimeout(done, ms));

  class Refused extends Error {}

  // The server's way.
  class Server {
    constructor(say, fail) {
      this.say = say;
      this.fail = fail;
      this.token = '';
      this.sending = Promise.resolve();
    }

    async texts() {
      const found = await this.ask('study');
      this.token = found.token;
      this.study = found.study;
      this.kept = {waiting: [], ...recall(this.study)};
      return found;
    }

    begun() {
      return Boolean(this.kept.person);
    }

    // Returns {trials, answered, code}.
    async open() {
      const found = await this.ask('session', {person: this.kept.person || null});
      if (this.kept.person !== found.person) this.kept.waiting = [];
      this.kept.person = found.person;
      this.remember();
      const answered = new Set(found.answered);
      for (const row of this.kept.waiting) answered.add(row.trial_index);
      this.sendLater();
      return {trials: found.trials, answered, code: found.code,
        person: found.code, list: found.list};
    }

    keep(row) {
      this.kept.waiting.push(row);
      this.remember();
      this.sendLater();
    }

    sendLater() {
      this.sending = this.sending.then(() => this.send());
      this.sending.catch(this.fail);
    }

    async send() {
      while (this.kept.waiting.length) {
        const row = this.kept.waiting[0];
        await this.ask('answers', {secret: this.kept.person, answer: row});
        this.kept.waiting.shift();
        this.remember();
      }
    }

    settled() {
      return this.sending;
    }

    remember() {
      remember(this.study, this.kept);
    }

    forget() {
      forget(this.study);
    }

    // Asks until an answer comes. Only an answer that asking again cannot
    // change is an error.
    async ask(path, body) {
      for (let wait = 500; ; wait = Math.min(2 * wait, 8000)) {
        let reply = null;
        try {
          reply = await fetch(path, body === undefined ? {} : {
            method: 'POST',
            headers: {
              'Content-Type': 'application/json', 'X-CDM-Token': this.token,
            },
            body: JSON.stringify(body),
          });
          if (reply.ok) {
            const found = await reply.json();
            this.say('');
            return found;
          }
        } catch (error) {
          reply = null;
        }
        if (reply && reply.status === 403 && body !== undefined) {
          // The server was started anew, with another token.
          const found = await this.ask('study');
          if (found.token === this.token) throw new Refused(await reply.text());
          this.token = found.token;
          continue;
        }
        const again = !reply || [408, 429].includes(reply.status) ||
            reply.status >= 500;
        if (!again) throw new Refused(await reply.text());
        this.say('No connection. Trying again; your answers are not lost.');
        await pause(wait);
      }
    }
  }

  // The way of a folder of files, whose scripts set CDM_STUDY and CDM_LIST.
  class Folder {
    constructor(say) {
      this.say = say;
    }

    async texts() {
      this.study = window.CDM_STUDY.study;
      this.kept = {rows: [], ...recall(this.study)};
      return window.CDM_STUDY;
    }

    begun() {
      return Boolean(this.kept.person);
    }

    async open() {
      if (!this.kept.person) {
        const random = crypto.getRandomValues(new Uint8Array(8));
        this.kept.person =
            [...random].map((n) => n.toString(16).padStart(2, '0')).join('');
        this.kept.list = this.chosen();
        this.remember();
      }
      await this.script('lists/' + this.kept.list + '.js');
      return {
        trials: window.CDM_LIST,
        answered: new Set(this.kept.rows.map((row) => row.trial_index)),
        code: this.kept.person, person: this.kept.person, list: this.kept.list,
      };
    }

    // The list of the address, ?list=7, or one at random.
    chosen() {
      const given = new URLSearchParams(location.search).get('list');
      const count = window.CDM_STUDY.lists;
      if (given !== null && /^\d{1,6}$/.test(given)) return given % count;
      return Math.floor(Math.random() * count);
    }

    async script(source) {
      for (let wait = 500; ; wait = Math.min(2 * wait, 8000)) {
        const loaded = await new Promise((done) => {
          const script = document.createElement('script');
          script.src = source;
          script.onload = () => done(true);
          script.onerror = () => done(false);
          document.head.append(script);
        });
        if (loaded) return;
        this.say('No connection. Trying again.');
        await pause(wait);
      }
    }

    keep(row) {
      this.kept.rows.push(row);
      this.remember();
    }

    async settled() {
    }

    remember() {
      remember(this.study, this.kept);
    }

    forget() {
      forget(this.study);
    }

    file() {
      const text = JSON.stringify(this.kept.rows);
      return {
        name: 'answers_' + this.kept.person + '.json',
        blob: new Blob([text], {type: 'application/json'}),
      };
    }
  }

  return {
    open: (say, fail) =>
      window.CDM_STUDY ? new Folder(say) : new Server(say, fail),
  };
})();
