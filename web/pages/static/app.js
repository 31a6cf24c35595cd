// Comforts: the pages work without this script.
(function () {
  'use strict';

  // A form is sent once, however often its button is pressed.
  document.addEventListener('submit', function (event) {
    var form = event.target;
    if (form.hasAttribute('data-sent')) {
      event.preventDefault();
      return;
    }
    form.setAttribute('data-sent', '');
    setTimeout(function () { form.removeAttribute('data-sent'); }, 5000);
  });

  // Times in the browser's own zone.
  var times = document.querySelectorAll('time[datetime]');
  for (var i = 0; i < times.length; i++) {
    try {
      times[i].textContent = new Date(times[i].getAttribute('datetime')).toLocaleString(
        document.documentElement.lang, { dateStyle: 'medium', timeStyle: 'short' });
    } catch (e) { /* the server's rendering stays */ }
  }

  var scan = document.getElementById('scan');
  if (scan) follow(scan);

  // follow shows what becomes of the QR code and goes on once it is approved.
  function follow(scan) {
    var base = scan.getAttribute('data-base');
    var status = document.getElementById('scan-status');
    var source = null, polling = null, silence = null, clock = null;

    function over(state) {
      return state === 'approved' || state === 'denied' || state === 'expired';
    }

    function stop() {
      if (source) source.close();
      clearInterval(polling);
      clearTimeout(silence);
      clearInterval(clock);
    }

    function show(state) {
      var before = scan.getAttribute('data-state');
      var text = status.getAttribute('data-' + state);
      if (!text || over(before)) return;
      if (state !== before) {
        scan.setAttribute('data-state', state);
        status.textContent = text;
      }
      if (over(state)) stop();
      if (state === 'approved') {
        HTMLFormElement.prototype.submit.call(document.getElementById('scan-finish'));
      }
    }

    function read(json) {
      try { show(JSON.parse(json).state); } catch (e) { /* the next one may be better */ }
    }

    function poll() {
      if (source) source.close();
      clearTimeout(silence);
      if (polling) return;
      polling = setInterval(function () {
        var request = new XMLHttpRequest();
        request.open('GET', base + '/state');
        request.onload = function () {
          if (request.status === 200) read(request.responseText);
          else if (request.status === 404 || request.status === 410) show('expired');
        };
        request.send();
      }, 2000);
    }

    function listen() {
      var failures = 0;
      source = new EventSource(base + '/events');
      function heard(event) {
        failures = 0;
        clearTimeout(silence);
        read(event.data);
      }
      source.addEventListener('message', heard);
      source.addEventListener('error', function () {
        failures++;
        if (source.readyState === 2 || failures > 2) poll();
      });
      // A proxy may hold events back.
      silence = setTimeout(poll, 5000);
    }

    // The server decides when a code expires. The clock only follows it, and
    // speaks for it where it stays silent.
    function count() {
      var seconds = Number(scan.getAttribute('data-seconds'));
      var end = Date.now() + seconds * 1000;
      var left = document.getElementById('scan-left');
      function tick() {
        var rest = Math.max(0, Math.round((end - Date.now()) / 1000));
        left.textContent = Math.floor(rest / 60) + ':' + ('0' + rest % 60).slice(-2);
        if (Date.now() > end + 5000) show('expired');
      }
      if (!(seconds > 0)) return;
      tick();
      clock = setInterval(tick, 1000);
      document.getElementById('scan-countdown').hidden = false;
    }

    if (over(scan.getAttribute('data-state'))) {
      // Rendered as approved, the page has not gone on yet.
      if (scan.getAttribute('data-state') === 'approved') {
        HTMLFormElement.prototype.submit.call(document.getElementById('scan-finish'));
      }
      return;
    }
    count();
    // Some test browsers have a hollow EventSource.
    if (window.EventSource && EventSource.prototype.close) listen();
    else poll();
  }
})();
