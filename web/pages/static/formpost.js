// Sends the page's only form. A field may be called "submit", so the form's own
// method is not asked for by its name.
(function () {
  'use strict';
  HTMLFormElement.prototype.submit.call(document.getElementById('form-post'));
})();
