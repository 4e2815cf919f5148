// Speaks with the server: asks, sends pictures, and watches what becomes of them.
'use strict';
window.cdmServer = (function () {
  const POLL_MS = 1000;
  let token = '';

  class Refused extends Error {}

  async function sentence(reply) {
    const text = await reply.text();
    return text.length && text.length < 500 ? text :
      `The server answered ${reply.status}.`;
  }

  async function ask(path, options = {}) {
    let reply;
    try {
      reply = await fetch(path, {cache: 'no-store', ...options});
    } catch (error) {
      throw new Error('The server does not answer. Is the program still running?');
    }
    if (!reply.ok) throw new Refused(await sentence(reply));
    return reply.status === 204 ? null : reply.json();
  }

  async function about() {
    // The access token of the address is in a cookie by now.
    if (new URLSearchParams(location.search).has('token')) {
      history.replaceState(null, '', location.pathname);
    }
    const found = await ask('about');
    token = found.token;
    return found;
  }

  const send = (method, path, body) => ask(path, {
    method, headers: {'x-cdm-token': token, 'content-type': 'application/json'},
    body: body === undefined ? undefined : JSON.stringify(body),
  });

  // Sends a file; onShare(0..1) as it goes. Returns {promise of a key, abort}.
  function upload(file, onShare) {
    const request = new XMLHttpRequest();
    const promise = new Promise((done, fail) => {
      request.open('POST', 'pictures');
      request.setRequestHeader('x-cdm-token', token);
      request.setRequestHeader('x-file-name', encodeURIComponent(file.name || ''));
      request.setRequestHeader('content-type', 'application/octet-stream');
      request.upload.onprogress = (event) => {
        if (event.lengthComputable) onShare(event.loaded / event.total);
      };
      request.onload = () => {
        if (request.status === 201) {
          done(JSON.parse(request.responseText).key);
        } else {
          fail(new Refused(request.responseText.slice(0, 500) ||
            `The server answered ${request.status}.`));
        }
      };
      request.onerror = () => fail(new Error(
          'The picture could not be sent. Is the program still running?'));
      request.onabort = () => fail(null);
      request.send(file);
    });
    return {promise, abort: () => request.abort()};
  }

  // Calls onView with each change of an entry until nothing is worked on, by
  // events, or by asking every second where no events come.
  // Returns a function that ends it.
  function watch(key, onView, onGone) {
    let ended = false;
    let timer = 0;
    const source = new EventSource(`entries/${key}/events`);
    const over = () => { ended = true; source.close(); clearTimeout(timer); };
    source.onmessage = (event) => { if (!ended) onView(JSON.parse(event.data)); };
    source.addEventListener('over', over);
    source.onerror = () => {
      source.close();
      if (!ended) poll();
    };
    async function poll() {
      try {
        const view = await ask(`entries/${key}`);
        if (ended) return;
        onView(view);
        if (!['waiting', 'working'].includes(view.state)) over();
      } catch (error) {
        if (error instanceof Refused) {
          over();
          onGone(error);
          return;
        }
      }
      if (!ended) timer = setTimeout(poll, POLL_MS);
    }
    return over;
  }

  return {
    Refused, about, upload, watch,
    look: (key) => ask(`entries/${key}`),
    part: (key, body) => send('POST', `entries/${key}/part`, body),
    file: (key, body) => send('POST', `entries/${key}/file`, body),
    stop: (key) => send('POST', `entries/${key}/stop`),
    remove: (key) => send('DELETE', `entries/${key}`),
    draw: (body) => send('POST', 'draws', body),
    media: (key, name) => `entries/${key}/media/${name}`,
    download: (key, number) => `entries/${key}/files/${number}`,
    // The sessions's entries, which a reload finds again.
    kept: () => JSON.parse(sessionStorage.getItem('cdm-entries') || '[]'),
    keep: (keys) => sessionStorage.setItem('cdm-entries', JSON.stringify(keys)),
  };
})();

// Shows how far a task is: <progress id="progress">, #told and #busy.
window.cdmBusy = function (view) {
  const $ = (id) => document.getElementById(id);
  const busy = view && ['waiting', 'working', 'sending'].includes(view.state);
  $('busy').hidden = !busy;
  if (!busy) return;
  const WORDS = {
    open: 'Reading the picture', part: 'Enlarging the part',
    file: 'Enlarging the whole picture', draw: 'Drawing',
  };
  let told = WORDS[view.what] || 'Sending the picture';
  if (view.state === 'waiting') {
    told = view.before ? `Waiting: ${view.before} before it` : 'Waiting';
  }
  if (view.total) {
    $('progress').value = view.done / view.total;
    told += `, ${Math.floor(100 * view.done / view.total)} %`;
  } else {
    $('progress').removeAttribute('value');
  }
  const left = view.seconds_left;
  if (left !== null && left !== undefined && view.done < view.total) {
    told += left < 90 ? `, about ${Math.max(1, Math.round(left))} s left` :
      `, about ${Math.round(left / 60)} min left`;
  }
  $('told').textContent = told;
};
