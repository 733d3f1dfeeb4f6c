"""`x2ct serve`: X-rays in, a CT out, over HTTP, and a page to do it with. Needs the extra `serve`.

`app` has the routes, `form` reads what is posted, `jobs` has the queue and the one worker, `server` runs it all until a
signal ends it, `problem` is what an error looks like.
"""
