"use strict";(()=>{try{let e=JSON.parse(localStorage.getItem("qna.theme")??"null");(e==="light"||e==="dark")&&(document.documentElement.dataset.theme=e)}catch{}})();
